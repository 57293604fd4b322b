"""How many keys do tables hold, by the way in which tokens become addresses?"""
