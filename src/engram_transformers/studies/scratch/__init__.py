"""Does Engram help a model that is trained from the beginning?"""
