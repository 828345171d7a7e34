"""The colours of all pictures."""

COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#9c6b4e", "#a463f2", "#6cc5b0", "#97bbf5")
