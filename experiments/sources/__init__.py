"""What do conversion and reading cost?"""
