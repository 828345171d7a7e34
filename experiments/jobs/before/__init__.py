"""Each job with the library of commit 50e2794, and code by hand for all that it lacks."""
