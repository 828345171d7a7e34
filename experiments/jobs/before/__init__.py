"""Each job with the library of commit 50e2794, or by hand what that had not."""
