"""The documentation site: ``make docs`` builds it into build/site, to be read without a network.

Pages are the Markdown files here. Those of the commands and of the functions are made from the parsers and from the
docstrings (``_site/commands.py``, ``_site/modules.py``) each time it is built, into ``reference/``, which is not kept.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_site"))

project = "MindDiffuser"
author = copyright = "The MindDiffuser team"
smartquotes = False  # two hyphens are an option
html_title = "MindDiffuser"
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_copybutton",
    "commands",
    "docstrings",
    "links",
    "mathml",
    "modules",
]

# Links to a heading of another page, as GitHub makes them.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
exclude_patterns = ["_site", "**/.ipynb_checkpoints"]
# Notebooks run when the site is built, in a folder of their own, and an error in one is an error of the site. They take
# most of the build's time: NOTEBOOKS=off leaves them out.
nb_execution_mode = "off" if os.environ.get("NOTEBOOKS") == "off" else "force"
nb_execution_in_temp = True
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
suppress_warnings = [
    "ref.python",  # a word in a description of shapes, such as n, which is the name of several things too
    "myst.xref_ambiguous",  # a heading and a page of the same name: GitHub's rule decides
]

autodoc_typehints = "none"  # the signature has them
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Keys", "params_style")]

html_theme = "furo"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"
