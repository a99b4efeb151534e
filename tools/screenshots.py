"""Pictures of the editor, of real runs in a real browser: those of the help pages, the README's animation, and a gallery.

    python -m tools.screenshots help [NODE ...]         # web/docs/images/NODE.webp
    python -m tools.screenshots animation               # docs/more_like_this.webp
    python -m tools.screenshots gallery FOLDER [PART ...]

The gallery is to be looked at: every template opened and run, the blueprint, the chooser in four states, a help page in each
language, and the commonest errors. Needs Chromium, see tools/browser.py. Graphs run with the small model of the pack.
"""

from __future__ import annotations

import base64
import io
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from tools import templates
from tools.browser import Browser
from tools.comfy_server import ROOT, ComfyServer
from tools.editor import Editor, blueprint_with_toy, node
from tools.templates import (
    Column,
    Node,
    Template,
    choose,
    composite,
    graph_form,
    inpaint,
    picture,
    sampler_custom,
    shape_of,
    toy,
)

EXAMPLES, HELP = ROOT / "web" / "examples", ROOT / "web" / "docs" / "images"
ANIMATION = ROOT / "docs" / "more_like_this.webp"
WIDTH, FRAME = 900, (800, 560)
PREVIEW = {"preview": Node("PreviewImage", "Preview Image", {"images": ["composite", 0]})}
ANIMATED = (
    ("picture", "checkpoint", "conditioning"),
    ("inpaint", "decode", "composite"),
    ("choose", "save"),
    ("like", "decode_like", "composite_like"),
    ("choose_like",),
    ("part", "decode_part", "composite_part"),
    ("choose_part", "keep"),
    ("spread", "uncertainty"),
)
# Nodes of a graph that a help page shows, where these are not all.
SHOWN = {
    "VIPaintUnconditional": ("checkpoint", "conditioning", "inpaint"),
    "VIPaintComposite": ("picture", "decode", "composite", "preview"),
    "VIPaintSample": ("inpaint", "choose", "sample", "decode_more", "preview"),
    "VIPaintUncertainty": ("picture", "decode", "composite", "spread", "uncertainty"),
    "VIPaintSigmas": ("checkpoint", "conditioning", "encode", "repeat", "levels", "sampler", "sample"),
}
LANGUAGES = ("en", "zh", "ja", "fr")


# --- the graphs of the help pages ---


def small(*columns: Sequence[str], **nodes: Node) -> Template:
    return Template("help", "", nodes, [Column("", tuple(names)) for names in columns])


def prompted(**inputs: Any) -> dict[str, Any]:
    """Inputs of nodes that paint, without a prompt."""
    prompts = {"positive": ["conditioning", 0], "negative": ["conditioning", 0]}
    return {"model": ["checkpoint", 0], **prompts, "seed": 0, "cfg": 1.0, **inputs}


def masked(**inputs: Any) -> dict[str, Any]:
    return {"image": ["picture", 0], "mask": ["picture", 1], "vae": ["checkpoint", 2], **inputs}


def decoded(source: str) -> dict[str, Node]:
    return {"decode": Node("VAEDecode", "VAE Decode", {"samples": [source, 0], "vae": ["checkpoint", 2]})}


def shown(source: str, output: int = 0, kind: str = "PreviewImage") -> dict[str, Node]:
    name = "mask" if kind == "MaskPreview" else "images"
    return {"preview": Node(kind, "Preview", {name: [source, output]})}


def help_graphs() -> dict[str, Template]:
    """A small graph for each node, by its id."""
    start = {**toy(), **picture("portrait", "Load Image, with a mask")}
    fit = Node("VIPaintFit", "VIPaint Fit Posterior", prompted(preset="fast", **masked()))
    draw = Node("VIPaintSample", "VIPaint Sample Posterior", prompted(posterior=["fit", 0], fills=4, first_fill=0))
    face = {**toy(), **picture("faceless", "Load Image, with a mask"), **inpaint()}
    levels = Node(
        "VIPaintSigmas", "VIPaint Sigmas", {"model": ["checkpoint", 0], "preset": "fast", "latent_image": ["repeat", 0]}
    )
    crop = Node(
        "VIPaintCrop",
        "VIPaint Crop",
        {"image": ["picture", 0], "mask": ["picture", 1], "width": 128, "height": 128, "context": 1.5, "enlarge": 1.0},
    )
    chosen = choose(["composite", 0], "VIPaint", mask=["picture", 1], latent=["inpaint", 0])
    repeat = {"samples": ["encode", 0], "amount": 4}
    encode = {"pixels": ["picture", 0], "vae": ["checkpoint", 2], "mask": ["picture", 1], "grow_mask_by": 8}
    sampling = small(
        ("picture", "checkpoint", "conditioning"),
        ("encode", "repeat", "levels", "sampler"),
        ("sample", "decode"),
        ("preview",),
        **start,
        encode=Node("VAEEncodeForInpaint", "VAE Encode (for Inpainting)", encode),
        repeat=Node("RepeatLatentBatch", "How many fills", repeat),
        levels=levels,
        sampler=Node("VIPaintSampler", "VIPaint Sampler", {"preset": "fast"}),
        sample=sampler_custom("SamplerCustom"),
        **decoded("sample"),
        **shown("decode"),
    )
    painting = small(
        ("picture", "checkpoint", "conditioning"),
        ("inpaint",),
        ("decode", "composite"),
        ("preview",),
        **start,
        **inpaint(),
        **composite(),
        **PREVIEW,
    )
    return {
        "VIPaintInpaint": painting,
        "VIPaintUnconditional": painting,
        "VIPaintComposite": painting,
        "VIPaintRestore": small(
            ("picture", "checkpoint", "conditioning"),
            ("restore",),
            ("preview",),
            **toy(),
            **picture("small", "Load Image"),
            restore=Node(
                "VIPaintRestore",
                "VIPaint Restore",
                {
                    **prompted(fills=1, steps=15, attempts=2, noise=0.02),
                    "degradation": "super-resolution",
                    "degradation.factor": "8",
                    "degradation.kind": "bicubic",
                    "image": ["picture", 0],
                    "vae": ["checkpoint", 2],
                },
            ),
            **shown("restore", 1),
        ),
        "VIPaintFit": small(
            ("picture", "checkpoint", "conditioning"),
            ("fit",),
            ("sample", "decode"),
            ("preview",),
            **start,
            fit=fit,
            sample=draw,
            **decoded("sample"),
            **shown("decode"),
        ),
        "VIPaintSample": small(
            ("picture", "checkpoint", "conditioning"),
            ("inpaint", "decode", "composite"),
            ("choose",),
            ("sample", "decode_more"),
            ("preview",),
            **face,
            **composite(),
            choose=chosen["choose"],
            sample=Node(
                "VIPaintSample",
                "VIPaint Sample Posterior",
                prompted(posterior=["inpaint", 1], around=["choose", 0], fills=4, first_fill=0, variation=0.6),
            ),
            decode_more=decoded("sample")["decode"],
            **shown("decode_more"),
        ),
        "VIPaintSavePosterior": small(
            ("picture", "checkpoint", "conditioning"),
            ("fit",),
            ("save",),
            **start,
            fit=fit,
            save=Node(
                "VIPaintSavePosterior",
                "VIPaint Save Posterior",
                {"posterior": ["fit", 0], "filename_prefix": "portrait"},
            ),
        ),
        "VIPaintLoadPosterior": small(
            ("checkpoint", "conditioning", "load"),
            ("sample",),
            ("decode", "preview"),
            **toy(),
            load=Node("VIPaintLoadPosterior", "VIPaint Load Posterior", {"file": "portrait_00001_.safetensors"}),
            sample=Node(
                "VIPaintSample", "VIPaint Sample Posterior", prompted(posterior=["load", 0], fills=4, first_fill=0)
            ),
            **decoded("sample"),
            **shown("decode"),
        ),
        "VIPaintSampler": sampling,
        "VIPaintSigmas": sampling,
        "VIPaintMask": small(
            ("picture",),
            ("tend",),
            ("preview",),
            **picture("espresso", "Load Image, with a mask"),
            tend=Node("VIPaintMask", "VIPaint Mask", {"mask": ["picture", 1], "grow": 24, "blur": 8.0}),
            **shown("tend", 0, "MaskPreview"),
        ),
        "VIPaintCrop": small(
            ("picture",),
            ("crop",),
            ("preview",),
            **picture("large", "Load Image, with a mask"),
            crop=crop,
            **shown("crop"),
        ),
        "VIPaintChoose": small(
            ("picture", "checkpoint", "conditioning"),
            ("inpaint", "decode", "composite"),
            ("choose",),
            **face,
            **composite(),
            choose=chosen["choose"],
        ),
        "VIPaintUncertainty": small(
            ("picture", "checkpoint", "conditioning"),
            ("inpaint", "decode", "composite"),
            ("spread", "uncertainty"),
            **face,
            **composite(),
            spread=chosen["spread"],
            uncertainty=chosen["uncertainty"],
        ),
        "VIPaintBaseline": small(
            ("picture", "checkpoint", "conditioning"),
            ("baseline",),
            ("decode", "preview"),
            **start,
            baseline=Node("VIPaintBaseline", "VIPaint Baseline", prompted(fills=2, method="ding", **masked())),
            **decoded("baseline"),
            **shown("decode"),
        ),
    }


# --- the editor ---


def run(editor: Editor, timeout: float = 900) -> None:
    """Runs what is open and waits for its end."""
    before = len(editor.server.get("/history"))
    if not editor.browser.evaluate("await app.queuePrompt(0)"):
        raise RuntimeError(f"refused: {editor.browser.evaluate('JSON.stringify(app.lastNodeErrors)')}")
    end = time.monotonic() + timeout
    while len(editor.server.get("/history")) == before and time.monotonic() < end:
        time.sleep(0.5)
    # Pictures arrive after the message of the end.
    time.sleep(3)


def show_panels(editor: Editor, shown: bool) -> None:
    """Menus and side bars."""
    wrong = "app.extensionManager.focusMode === args.shown"
    editor.browser.evaluate(f"({wrong} && app.extensionManager.toggleFocusMode(), 1)", shown=shown)
    time.sleep(1)


def photograph(editor: Editor, nodes: Sequence[int] | None = None, margin: int = 28) -> Image.Image:
    """The nodes of a graph as large as the window allows, cut to their bounds. nodes: their ids; None: all."""
    show_panels(editor, False)
    body = """
      const all = app.graph._nodes.filter((one) => !args.nodes || args.nodes.includes(Number(one.id)));
      const box = all.map((one) => one.getBounding());
      const left = Math.min(...box.map((b) => b[0])) - args.margin, top = Math.min(...box.map((b) => b[1])) - args.margin;
      const right = Math.max(...box.map((b) => b[0] + b[2])) + args.margin;
      const bottom = Math.max(...box.map((b) => b[1] + b[3])) + args.margin;
      const { ds } = app.canvas, { width, height } = app.canvas.canvas.getBoundingClientRect();
      const scale = Math.min(width / (right - left), height / (bottom - top), 1);
      ds.scale = scale;
      ds.offset = [-left, -top];
      app.canvas.setDirty(true, true);
      return { x: 0, y: 0, width: (right - left) * scale, height: (bottom - top) * scale };
    """
    clip = editor.browser.page(
        f"return await page.evaluate((args) => {{ const app = window.app; {body} }}, args)", nodes=nodes, margin=margin
    )
    time.sleep(1.5)
    place = editor.browser.evaluate("(({ left, top }) => ({ left, top }))(app.canvas.canvas.getBoundingClientRect())")
    shot = whole(editor, {**clip, "x": place["left"], "y": place["top"]})
    show_panels(editor, True)
    return shot


def whole(editor: Editor, clip: dict[str, float] | None = None) -> Image.Image:
    """A screenshot of the window, or of a part of it."""
    code = "return (await page.screenshot(args.clip ? {clip: args.clip} : {})).toString('base64')"
    return Image.open(io.BytesIO(base64.b64decode(editor.browser.page(code, clip=clip)))).convert("RGB")


def open_graph(editor: Editor, template: Template, name: str, preset: str = "") -> None:
    """A template without its note. preset: another one for all nodes that have one."""
    shapes = {key: shape_of(editor.server.object_info(one.kind), one) for key, one in template.nodes.items()}
    graph = graph_form(template, shapes)
    graph["nodes"] = [one for one in graph["nodes"] if one["type"] != "MarkdownNote"]
    graph["groups"] = [group for group in graph["groups"] if group["title"]]
    editor.browser.evaluate("await app.loadGraphData(args.graph, true, true, args.name)", graph=graph, name=name)
    set_preset(editor, preset)
    time.sleep(1)


def set_preset(editor: Editor, preset: str) -> None:
    if preset:
        presets = "app.graph._nodes.flatMap((one) => one.widgets ?? []).filter((one) => one.name === 'preset')"
        editor.browser.evaluate(f"({presets}.forEach((one) => (one.value = args.preset)), 1)", preset=preset)


def save(image: Image.Image, file: Path, width: int = WIDTH) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.save(file, quality=75, method=6) if file.suffix == ".webp" else image.save(file)
    print(file.name, image.size, file.stat().st_size, flush=True)


def make_help(editor: Editor, wanted: Sequence[str]) -> None:
    editor.open()
    for name, template in help_graphs().items():
        if wanted and name not in wanted:
            continue
        open_graph(editor, template, name)
        run(editor)
        ids = {key: number for number, key in enumerate(template.nodes, 1)}
        save(photograph(editor, [ids[key] for key in SHOWN.get(name, ids)]), HELP / f"{name}.webp")


# --- the animation ---


def make_animation(editor: Editor) -> None:
    """Paint, choose, look closely, draw more like it, keep a part of it; each frame with the seconds that it stays."""
    frames: list[tuple[Image.Image, float]] = []
    editor.open()
    graph = {one.name: one for one in templates.TEMPLATES}["more_like_this"]
    # Side by side what frames show together.
    graph = replace(graph, columns=[Column("", names) for names in ANIMATED])
    open_graph(editor, graph, "animation")
    ids = {name: number for number, name in enumerate(graph.nodes, 1)}

    def frame(seconds: float, *names: str) -> None:
        shot = photograph(editor, [ids[name] for name in names])
        canvas = Image.new("RGB", FRAME, (30, 30, 34))
        scale = min(FRAME[0] / shot.width, FRAME[1] / shot.height)
        shot = shot.resize((round(shot.width * scale), round(shot.height * scale)), Image.Resampling.LANCZOS)
        canvas.paste(shot, ((FRAME[0] - shot.width) // 2, (FRAME[1] - shot.height) // 2))
        frames.append((canvas, seconds))

    chooser = ("choose",)
    frame(2.5, "picture", "checkpoint", "conditioning", "inpaint")
    run(editor)
    frame(2.5, "picture", "checkpoint", "conditioning", "inpaint")
    frame(3, *chooser)
    # There are three choosers in this graph.
    root = f"app.graph.getNodeById({ids['choose']}).vipaintChooser.root"
    editor.browser.evaluate(f"({root}.focus(), 1)")
    editor.key("2")
    editor.key("Space")
    frame(1.5, *chooser)
    editor.key("b")
    frame(1.5, *chooser)
    editor.key("b")
    for number in ("3", "4", "2"):
        editor.key(number)
        frame(0.8, *chooser)
    editor.key("u")
    frame(2, *chooser)
    editor.key("u")
    editor.key("Enter")
    editor.key("Escape")
    frame(2, *chooser)
    run(editor)
    frame(4, "like", "choose_like")
    frame(4, "keep", "part", "choose_part")
    first, *others = (image for image, _ in frames)
    milliseconds = [round(1000 * seconds) for _, seconds in frames]
    first.save(ANIMATION, save_all=True, append_images=others, duration=milliseconds, loop=0, quality=70, method=6)
    print(ANIMATION.name, sum(milliseconds) / 1000, "s", ANIMATION.stat().st_size, flush=True)


# --- the gallery ---


def gallery(editor: Editor, folder: Path, wanted: Sequence[str]) -> None:
    for part, make in (
        ("templates", of_templates),
        ("blueprint", of_blueprint),
        ("chooser", of_chooser),
        ("help", of_help),
        ("errors", of_errors),
    ):
        if not wanted or part in wanted:
            for name, image in make(editor):
                save(image, folder / f"{part}_{name}.png", 1600)


def of_templates(editor: Editor) -> Iterator[tuple[str, Image.Image]]:
    editor.open()
    for template in templates.TEMPLATES:
        editor.load(template.name)
        time.sleep(2)
        editor.browser.evaluate("(await app.extensionManager.command.execute('Comfy.Canvas.FitView'), 1)")
        time.sleep(2)
        yield f"{template.name}_opened", whole(editor)
        if any(one.models for one in template.nodes.values()):
            continue
        set_preset(editor, "fast")
        run(editor)
        yield f"{template.name}_run", photograph(editor)


def of_blueprint(editor: Editor) -> Iterator[tuple[str, Image.Image]]:
    editor.open()
    editor.insert_blueprint()
    time.sleep(2)
    yield "inserted", whole(editor)
    editor.browser.evaluate("await app.loadGraphData(args.graph, true, true, 'blueprint')", graph=blueprint_with_toy())
    set_preset(editor, "fast")
    run(editor)
    yield "run", photograph(editor)


def of_chooser(editor: Editor) -> Iterator[tuple[str, Image.Image]]:
    editor.open()
    open_graph(editor, help_graphs()["VIPaintChoose"], "chooser", "fast")
    editor.look_at("VIPaintChoose")
    yield "empty", whole(editor)
    run(editor)
    editor.look_at("VIPaintChoose")
    yield "grid", whole(editor)
    editor.cell(2)
    editor.key("b")
    time.sleep(1)
    yield "before_and_after", whole(editor)
    editor.key("b")
    editor.key("u")
    time.sleep(1)
    yield "uncertainty", whole(editor)
    editor.key("Enter")
    time.sleep(1)
    yield "chosen", whole(editor)
    editor.browser.set("Comfy.ColorPalette", "light")
    time.sleep(2)
    yield "light", whole(editor)
    editor.browser.set("Comfy.ColorPalette", "dark")
    editor.open(Comfy_VueNodes_Enabled=True)
    open_graph(editor, help_graphs()["VIPaintChoose"], "chooser", "fast")
    run(editor)
    editor.look_at("VIPaintChoose")
    time.sleep(2)
    yield "vue", whole(editor)


def of_help(editor: Editor) -> Iterator[tuple[str, Image.Image]]:
    for language in LANGUAGES:
        editor.open(Comfy_Locale=language)
        open_graph(editor, help_graphs()["VIPaintInpaint"], "help")
        editor.browser.evaluate(f"(app.canvas.selectNode({node('VIPaintInpaint')}), 1)")
        editor.browser.page("await page.getByTestId('info-button').click()")
        time.sleep(4)
        yield language, whole(editor)
    editor.open()


def with_inputs(template: Template, name: str, more: dict[str, Node] | None = None, **inputs: Any) -> Template:
    """A template with other inputs of one node (None: not connected), and more nodes, below the first ones."""
    kept = {key: value for key, value in {**template.nodes[name].inputs, **inputs}.items() if value is not None}
    nodes = {**template.nodes, **(more or {}), name: replace(template.nodes[name], inputs=kept)}
    first, *others = template.columns
    return replace(template, nodes=nodes, columns=[Column("", (*first.nodes, *(more or {}))), *others])


def faulty() -> dict[str, Template]:
    """Graphs with the commonest errors: links, masks, and a black mask, which is a warning."""
    painting, like = help_graphs()["VIPaintInpaint"], help_graphs()["VIPaintSample"]
    encode = {"encode": Node("VAEEncode", "VAE Encode", {"pixels": ["picture", 0], "vae": ["checkpoint", 2]})}
    black = {"black": Node("SolidMask", "SolidMask", {"value": 0.0, "width": 128, "height": 128})}
    return {
        "no_mask_connected": with_inputs(painting, "inpaint", mask=None),
        "no_mask_painted": with_inputs(painting, "picture", image="vipaint_blurred.png"),
        "both_sources": with_inputs(painting, "inpaint", encode, latent_image=["encode", 0]),
        "no_fill_to_keep_of": with_inputs(like, "sample", around=None, keep=["picture", 1]),
        "black_mask": with_inputs(painting, "inpaint", black, mask=["black", 0]),
    }


def of_errors(editor: Editor) -> Iterator[tuple[str, Image.Image]]:
    for name, template in faulty().items():
        editor.open()
        open_graph(editor, template, name, "fast")
        editor.browser.evaluate("(await app.extensionManager.command.execute('Comfy.Canvas.FitView'), 1)")
        editor.press_run()
        time.sleep(8)
        yield name, whole(editor)


def main() -> int:
    kind, *rest = sys.argv[1:] or ["help"]
    with ComfyServer([ROOT / "toy_prior" / templates.TOY]) as server, Browser() as browser:
        for file in EXAMPLES.glob("*.png"):
            server.upload_image(file, file.name)
        editor = Editor(browser, server)
        editor.usual |= {
            "Comfy.Minimap.Visible": False,
            "Comfy.Graph.CanvasMenu": False,
            "Comfy.Graph.CanvasInfo": False,
        }
        if kind == "help":
            make_help(editor, rest)
        elif kind == "animation":
            make_animation(editor)
        else:
            gallery(editor, Path(rest[0]), rest[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
