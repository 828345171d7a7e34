"""What does padding cost? Fixed, exact, bucketed and planned padding, and packing, side by side."""
