# The documentation site, built by `make docs`: the pages of this folder as a code host shows them, in the order below.
import importlib.util
import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import grape  # noqa: E402  (found by the line above)

project = "GRAPE"
author = "The GRAPE developers"
version = release = grape.__version__
html_title = f"GRAPE {version}"
html_last_updated_fmt = None
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
# Lines of a terminal, diagrams of the data flow and the cost language have no lexer.
highlight_language = "none"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
add_module_names = False
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
# Formulas are MathML, which browsers draw themselves: no script, and none from another host.
html_math_renderer = "mathml"
# What is not installed is stood in for: the reference of the public names needs neither simulators nor torch.
autodoc_mock_imports = [
    name
    for name in (
        "torch",
        "transformers",
        "tokenizers",
        "safetensors",
        "peft",
        "accelerate",
        "av",
        "mujoco",
        "metaworld",
        "sapien",
    )
    if importlib.util.find_spec(name) is None
]

# A newcomer's order: heading, then pages, with `Title <page>` where the page's own title says too little.
NAVIGATION = {
    "Start": ["In two minutes <overview>", "installation", "quickstart", "python"],
    "Tutorials": ["own-policy", "own-simulator"],
    "How to": [
        "verbs",
        "training",
        "studies",
        "openvla",
        "openvla-oft",
        "libero",
        "simpler",
        "simpler-original",
        "perception",
        "generation",
        "rlds",
        "lerobot",
        "memory",
        "migration",
    ],
    "Reference": [
        "reference/api",
        "reference/data",
        "reference/scores",
        "reference/measuring",
        "reference/extending",
        "costs",
    ],
    "Explanation": ["method", "statistics", "pitfalls", "rollout-speed", "training-speed", "architecture"],
    "Results": [
        "results/laboratory",
        "results/metaworld-nano",
        "results/libero-nano",
        "results/simpler-nano",
        "results/generated-costs",
    ],
    "Project": ["contributing", "measurements", "changelog", "security"],
}
# Files beside this folder that are pages of the site.
OUTSIDE = {
    "overview": "README.md",
    "contributing": "CONTRIBUTING.md",
    "measurements": "benchmarks/README.md",
    "changelog": "CHANGELOG.md",
    "security": "SECURITY.md",
}
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)\s#]+)")


def read_page(app, docname, source):
    """Give the first page the navigation; let links lead where they lead on a code host."""
    text = source[0]
    file = OUTSIDE.get(docname, f"docs/{docname}.md")
    if docname in OUTSIDE:
        text = (ROOT / file).read_text(encoding="utf-8")
    pages = {name: f"/{page}.md" for page, name in OUTSIDE.items()}

    def link(match):
        target = os.path.normpath(os.path.join(os.path.dirname(file), match[1]))
        inside = f"/{target.removeprefix('docs/')}" if target.startswith("docs/") else f"/../{target}"
        return f"]({pages.get(target, inside)}"

    text = LINK.sub(link, text)
    if docname == "index":
        for heading, names in NAVIGATION.items():
            text += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {heading}", "", *names, "```", ""])
    source[0] = text


def inline_formula(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def displayed_formula(translator, node):
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
    app.connect("source-read", read_page)
