"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# The notebooks' kernel imports this checkout, takes one thread, and prints tables as wide as a page.
os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "88"}

from eai import __version__ as release  # noqa: E402

project = "eai"
project_copyright = "the authors of eai"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "docs.directives"]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"eai {release}"
html_static_path, html_css_files = ["_static"], ["site.css"]
html_show_sphinx = html_copy_source = html_show_sourcelink = False

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]
copybutton_prompt_text = "$ "

# Notebooks run when the site is built; their errors fail the build, and those that did not change are not run again.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 150
nb_merge_streams = True

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
