"""Make a site of the Markdown, the notebook and the docstrings, to be read from its folder."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE),
]  # for multimodal_pad as it is here, and for extensions/

project = "multimodal_pad"
project_copyright = "Apache-2.0"
html_title = project
html_short_title = project

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "extensions.no_network",
    "extensions.outside_files",
    "extensions.references",
]
exclude_patterns = ["extensions", "templates"]
keep_warnings = True  # a page shows what the build complains of

# Pages: Markdown that a code host shows as well, with links to headings by the host's anchors.
myst_heading_anchors = 4
myst_enable_extensions = []

# Notebooks are committed without outputs and run by each build, which a failing cell fails.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds, for a cell
nb_merge_streams = True

# Names: what a docstring documents, in the order of the source.
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_mock_imports = ["grain"]  # an extra of the package, which the site does without
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = False  # each attribute can be linked to
napoleon_use_rtype = False
add_module_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

pygments_style = "a11y-high-contrast-light"
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "footer_center": [],
    "footer_end": [],
    "footer_start": ["copyright"],
    "navbar_center": [],
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button-field"],
    "navigation_with_keys": False,
    "pygments_dark_style": "a11y-high-contrast-dark",
    "pygments_light_style": "a11y-high-contrast-light",
    "secondary_sidebar_items": ["page-toc", "sourcelink"],
    "show_prev_next": True,
}
html_context = {"default_mode": "auto"}
html_copy_source = True
html_css_files = ["site.css"]
html_sidebars = {"**": ["all-pages"]}
html_sourcelink_suffix = ""  # so that a notebook is one when it is downloaded
html_static_path = ["assets"]
html_domain_indices = False
html_show_search_summary = False  # a browser reads no other pages of a folder
html_show_sphinx = False
templates_path = ["templates"]
