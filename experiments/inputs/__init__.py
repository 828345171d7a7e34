"""What becomes of what is handed in: right values, or an error that says what to do."""
