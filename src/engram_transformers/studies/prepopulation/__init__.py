"""Can a memory be filled without being trained?"""
