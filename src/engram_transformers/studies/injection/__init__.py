"""What can be put into a host instead of text so that it says a fact?"""
