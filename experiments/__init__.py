"""One script per question; they import anything, and nothing imports them."""
