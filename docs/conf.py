# The documentation site, built by `make docs`: the pages of this folder as a code host shows them, in the order below.
import hashlib
import importlib.util
import json
import logging
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

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css", "notebooks.css"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
# Lines of a terminal, diagrams of the data flow and the cost language have no lexer.
highlight_language = "none"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

# The tutorials are run from the sources of this checkout, with this interpreter; outputs are kept for builds of equal
# sources. What takes minutes runs in a small version unless GRAPE_NOTEBOOKS=full. Where a package that a tutorial needs
# is missing, it appears without outputs.
os.environ.setdefault("GRAPE_NOTEBOOKS", "small")
os.environ |= {
    "PYTHONPATH": str(ROOT / "src"),
    "JUPYTER_PREFER_ENV_PATH": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # bars of other packages, which a page does not show
}
os.environ.setdefault("OMP_NUM_THREADS", "1")
SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((ROOT / "src").rglob("*.[py]*"))))
NEEDED = {
    "align-a-policy": ("torch", "metaworld", "matplotlib", "jinja2", "av"),
    "own-policy": ("torch",),
    "own-simulator": ("torch", "gymnasium"),
    "write-a-cost": ("matplotlib",),
    "read-the-statistics": ("matplotlib",),
}
# For a quick build: RUN_NOTEBOOKS=write-a-cost runs one, RUN_NOTEBOOKS= none.
RUN = os.environ.get("RUN_NOTEBOOKS", ",".join(NEEDED)).split(",")
nb_execution_mode = "cache"
nb_execution_excludepatterns = [
    f"tutorials/{name}.md"
    for name, packages in NEEDED.items()
    if name not in RUN or not all(map(importlib.util.find_spec, packages))
]
nb_execution_cache_path = str(
    ROOT / "build" / "notebooks" / (SOURCES.hexdigest()[:16] + "-" + os.environ["GRAPE_NOTEBOOKS"])
)
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = -1
nb_merge_streams = True
logging.getLogger("traitlets").setLevel(logging.WARNING)  # the runner's own progress

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
    "Tutorials": [
        "tutorials/align-a-policy",
        "tutorials/own-policy",
        "tutorials/own-simulator",
        "tutorials/write-a-cost",
        "tutorials/read-the-statistics",
    ],
    "How to": [
        "own-policy",
        "own-simulator",
        "verbs",
        "judges",
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
        "hub",
        "remote-stores",
        "memory",
        "clusters",
        "serving",
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
        "results/judges",
        "results/generated-costs",
        "results/scaling",
        "results/large-store",
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
} | {page: f"examples/notebooks/{page.removeprefix('tutorials/')}.ipynb" for page in NAVIGATION["Tutorials"]}
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

    text = notebook_page(file, text, link) if file.endswith(".ipynb") else LINK.sub(link, text)
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


def notebook_page(file, text, link):
    """A notebook in MyST's notation, in which links can be followed."""
    parts = ["---\nfile_format: mystnb\nkernelspec: {name: python3, language: python}\n---"]
    for cell in json.loads(text)["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(LINK.sub(link, code))
        else:
            parts.append(f"````{{code-cell}} ipython3\n{code}\n````")
    parts.insert(2, f"{{download}}`Download this notebook </../{file}>`")
    return "\n\n".join(parts)


def setup(app):
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
    app.connect("source-read", read_page)
