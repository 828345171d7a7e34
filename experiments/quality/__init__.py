"""Does padding, packing or their order change what a model learns?"""
