"""How full are packed batches, and how full could any packing make them?"""
