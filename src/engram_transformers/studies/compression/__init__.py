"""What survives of a passage when only so many tokens or vectors of it are kept?"""
