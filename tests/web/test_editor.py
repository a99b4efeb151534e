"""The pack in the editor, in a real browser."""

from __future__ import annotations

import pytest

from tools.editor import CHOOSER, Editor, blueprint_with_toy, node, widget
from tools.templates import TEMPLATES

pytestmark = pytest.mark.host

CHOSEN = widget("VIPaintChoose", "chosen")


def test_a_new_user_opens_a_template_runs_it_and_chooses(editor: Editor) -> None:
    """From the template browser to the saved picture, with the mouse."""
    page = editor.browser.page
    editor.open(Comfy_TutorialCompleted=False)
    page("await page.getByText(/^vipaint$/).first().click()")
    page("await page.getByText('inpaint', {exact: true}).first().click()")
    editor.browser.wait(f"{node('VIPaintChoose')} && {node('LoadImage')}.imgs?.length", 30)
    assert editor.value("app.graph._nodes.filter((one) => one.has_errors || one.type === undefined).length") == 0
    assert editor.value(f"{widget('CheckpointLoaderSimple', 'ckpt_name')}.value") == "vipaint_toy.safetensors"
    editor.browser.evaluate(f"({widget('VIPaintInpaint', 'preset')}.value = 'fast', 1)")
    editor.run_to_fills(4)
    assert editor.value(f"{CHOOSER}.originals.length + {CHOOSER}.outlines.length + {CHOOSER}.spreads.length") == 3
    first = editor.value(f"app.nodeOutputs[{node('SaveImage')}.id].images")
    editor.look_at("VIPaintChoose")
    editor.cell(3, "dblclick")
    assert editor.value(f"{CHOSEN}.value") == "3" and editor.value(f"{CHOOSER}.isStale")
    editor.run_to_fills(4)
    second = editor.value(f"app.nodeOutputs[{node('SaveImage')}.id].images")
    assert len(first) == len(second) == 1 and first != second
    texts = editor.value(f"{node('VIPaintInpaint')}.widgets.map((one) => String(one.value)).join(' ')")
    assert "4 fills in" in texts


@pytest.mark.parametrize("vue", [False, True], ids=["litegraph", "vue"])
def test_the_chooser_by_keyboard_and_mouse(editor: Editor, vue: bool) -> None:
    editor.open(Comfy_VueNodes_Enabled=vue)
    editor.load("inpaint", preset="fast", fills=4)
    editor.run_to_fills(4)
    editor.look_at("VIPaintChoose")
    assert editor.value("document.querySelectorAll('.vipaint-chooser .cell').length") == 4
    editor.cell(2)
    assert editor.value("document.querySelectorAll('.vipaint-chooser .cell').length") == 1
    assert editor.value(f"{CHOOSER}.current") == 1 and editor.value(f"{CHOOSER}.large")
    editor.key("ArrowRight")
    assert editor.value(f"{CHOOSER}.current") == 2
    editor.key("4")
    editor.key("Enter")
    assert editor.value(f"{CHOSEN}.value") == "4"
    editor.key("1")
    editor.key("Shift+Enter")
    assert editor.value(f"{CHOSEN}.value") == "1, 4"
    editor.key("b")
    assert editor.value("document.querySelectorAll('.vipaint-chooser .before').length") == 1
    editor.key("f")
    shown = "document.querySelector('.vipaint-chooser img.fill').src"
    before = editor.value(shown)
    editor.browser.wait(f"{shown} !== args.before", 5, before=before)
    editor.key("f")
    editor.key("u")
    editor.browser.wait("document.querySelector('.vipaint-chooser img.spread')?.naturalWidth === 128", 10)
    editor.key("o")
    assert editor.value("document.querySelectorAll('.vipaint-chooser .outline').length") == 0
    editor.key("+")
    assert editor.value(f"{CHOOSER}.zoom.factor") == 1.25
    editor.key("Escape")
    assert editor.value("document.querySelectorAll('.vipaint-chooser .cell').length") == 4
    assert editor.value(f"{CHOOSER}.zoom.factor") == 1


def test_the_choice_is_kept_in_the_workflow(editor: Editor) -> None:
    editor.load("inpaint", preset="fast", fills=2)
    editor.run_to_fills(2)
    editor.look_at("VIPaintChoose")
    editor.cell(2, "dblclick")
    kept = editor.value("app.graph.serialize()")
    (chooser,) = (one for one in kept["nodes"] if one["type"] == "VIPaintChoose")
    assert chooser["widgets_values"] == ["2", 0]
    editor.open()
    editor.browser.evaluate("await app.loadGraphData(args.kept)", kept=kept)
    assert editor.value(f"{CHOSEN}.value") == "2" and editor.value(f"[...{CHOOSER}.chosen[0]]") == [2]
    prompt = editor.value("(await app.graphToPrompt()).output")
    (sent,) = (one for one in prompt.values() if one["class_type"] == "VIPaintChoose")
    assert sent["inputs"]["chosen"] == "2" and "vipaint_chooser" not in sent["inputs"]


def test_templates_open_as_they_are_meant(editor: Editor) -> None:
    """No node is missing, no link is lost, and what is sent is what the template says."""
    for template in TEMPLATES:
        editor.load(template.name)
        opened = editor.value("app.graph._nodes.map((one) => one.type)")
        assert sorted(opened) == sorted(["MarkdownNote", *(one.kind for one in template.nodes.values())])
        wrong = editor.value("app.graph._nodes.filter((one) => one.has_errors).length")
        # Only where a model is to be downloaded.
        assert not wrong or any(one.models for one in template.nodes.values()), template.name
        sent = editor.value("(await app.graphToPrompt()).output")
        numbers = {key: str(number) for number, key in enumerate(template.nodes, 1)}
        for key, one in template.nodes.items():
            found = sent[numbers[key]]
            assert found["class_type"] == one.kind
            for socket, value in one.inputs.items():
                expected = [numbers[value[0]], value[1]] if isinstance(value, list) else value
                assert found["inputs"][socket] == expected, f"{template.name}: {key}.{socket}"


def test_errors_name_node_and_input(editor: Editor) -> None:
    """Found before anything is loaded: the toast says which input, and its slot is marked."""
    editor.expected.append("400")
    editor.load("inpaint", preset="fast")
    editor.browser.evaluate(
        f"({node('VIPaintInpaint')}.disconnectInput({node('VIPaintInpaint')}.findInputSlot('mask')), 1)"
    )
    editor.press_run()
    editor.browser.wait("document.body.innerText.includes('VIPaint Inpaint: input mask')", 20)
    assert editor.value(f"{node('VIPaintInpaint')}.inputs.find((one) => one.name === 'mask').hasErrors")
    assert "CheckpointLoaderSimple" not in str(editor.server.get("/queue"))


def test_errors_in_the_artist_s_language(editor: Editor) -> None:
    """What is known of it; numbers are the error's own."""
    editor.expected.append("400")
    editor.open(Comfy_Locale="fr")
    editor.load("inpaint", preset="fast")
    editor.browser.evaluate(
        f"({node('VIPaintInpaint')}.disconnectInput({node('VIPaintInpaint')}.findInputSlot('mask')), 1)"
    )
    editor.press_run()
    words = "Attendu : image, masque et vae ensemble ; trouvé : pas de masque. Connectez le masque de Charger Image."
    editor.browser.wait("document.body.innerText.includes(args.words)", 20, words=words)
    module = "(await import('/extensions/vipaint/texts.js'))"
    english = "expected the picture's size, 640 x 480 pixels, found 64 x 32 pixels. Resize the mask to the picture."
    found = editor.browser.evaluate(f"{module}.errorText(args.english)", english=english)
    assert (
        found
        == "Attendu : la taille de l'image, 640 x 480 pixels ; trouvé : 64 x 32 pixels. Redimensionnez le masque à l'image."
    )
    unknown = "expected something new, found 3. Do this."
    assert (
        editor.browser.evaluate(f"{module}.errorText(args.unknown)", unknown=unknown)
        == "Attendu : something new ; trouvé : 3. Do this."
    )


def test_an_error_while_running_names_the_input_too(editor: Editor) -> None:
    """A picture without transparency has an empty mask."""
    editor.load("inpaint", preset="fast")
    editor.browser.evaluate(f"({widget('LoadImage', 'image')}.value = 'vipaint_blurred.png', 1)")
    editor.load("deblur")  # copies that picture
    editor.load("inpaint", preset="fast")
    editor.browser.evaluate(f"({widget('LoadImage', 'image')}.value = 'vipaint_blurred.png', 1)")
    editor.press_run()
    editor.browser.wait("document.body.innerText.includes('VIPaint Inpaint: input mask')", 30)
    assert "Mask Editor" in editor.value("document.body.innerText")
    assert editor.value(f"{node('VIPaintInpaint')}.inputs.find((one) => one.name === 'mask').hasErrors")


@pytest.mark.parametrize("vue", [False, True], ids=["litegraph", "vue"])
def test_presets_say_their_price_before_they_run(editor: Editor, vue: bool) -> None:
    """In passes at first, in seconds once the model has painted here; also after the editor is opened anew."""
    editor.open(Comfy_VueNodes_Enabled=vue, VIPaint_SecondsPerPass={})
    # A seed of its own: what comes from the host's cache takes no time.
    editor.load("inpaint", fills=2, seed=5 + vue)
    preset = widget("VIPaintInpaint", "preset")
    shown = f"{preset}._displayValue"
    label = (
        "document.querySelector('[data-testid=\"widget-select-default-trigger\"], .lg-node')?.closest('body').innerText"
    )

    def price(words: str) -> None:
        editor.browser.wait(f"{preset}.options.getOptionLabel({preset}.value).includes(args.words)", 10, words=words)
        editor.browser.wait(f"{label if vue else shown}.includes(args.words)", 10, words=words)

    price("balanced · 70 passes")
    editor.browser.evaluate(f"({preset}.value = 'fast', 1)")
    price("fast · 56 passes")
    editor.look_at("VIPaintInpaint")
    editor.run_to_fills(2)
    price("fast · about ")
    editor.browser.evaluate(f"({widget('VIPaintInpaint', 'fills')}.value = 1, 1)")
    kept = editor.value("app.extensionManager.setting.get('VIPaint.SecondsPerPass')")
    assert list(kept) == ["vipaint_toy.safetensors"] and 0 < kept["vipaint_toy.safetensors"] < 5
    assert editor.value("(await app.graphToPrompt()).output")["4"]["inputs"]["preset"] == "fast"
    editor.open(Comfy_VueNodes_Enabled=vue)
    editor.load("inpaint", fills=2)
    price("balanced · about ")


def test_sockets_have_colours_of_their_own(editor: Editor) -> None:
    """Also after another palette, which knows nothing of them."""
    editor.load("fit_once_draw_more")
    slot = f"{node('VIPaintFit')}.outputs[0].renderingColor(app.canvas.colourGetter)"
    assert editor.value(slot) == "#e0a458"
    editor.browser.set("Comfy.ColorPalette", "light")
    editor.browser.wait(f"{slot} === '#e0a458'", 5)
    editor.browser.set("Comfy.ColorPalette", "dark")


def test_saving_and_loading_show_file_names(editor: Editor) -> None:
    """Save says what it wrote; Load, on an installation without posteriors, offers it as soon as it is there."""
    editor.load("fit_once_draw_more")
    editor.browser.evaluate(f"({widget('VIPaintFit', 'preset')}.value = 'fast', 1)")
    editor.browser.evaluate("(app.graph.add(LiteGraph.createNode('VIPaintLoadPosterior')), 1)")
    assert editor.value(f"{widget('VIPaintLoadPosterior', 'file')}.value ?? 'undefined'") != "undefined"
    editor.browser.evaluate(f"({node('VIPaintLoadPosterior')}.mode = 2, 1)")
    editor.run_to_fills(8)
    text = f"{node('VIPaintSavePosterior')}.widgets.map((one) => String(one.value)).join(' ')"
    editor.browser.wait(f"/portrait_\\d+.*safetensors/.test({text})", 10)
    values = f"String({widget('VIPaintLoadPosterior', 'file')}.options.values)"
    editor.browser.wait(f"/portrait_\\d+/.test({values})", 10)


def test_the_blueprint_runs_where_it_is_put(editor: Editor) -> None:
    """From the search box to finished pictures; its preset has its price there too."""
    editor.insert_blueprint()
    blueprint = "app.graph._nodes.find((one) => one.subgraph)"
    assert editor.value(f"{blueprint}.title") == "Inpaint with VIPaint"
    assert editor.value(f"{blueprint}.inputs.slice(0, 5).map((one) => one.type).join()") == "IMAGE,MASK,MODEL,CLIP,VAE"
    names = editor.value(f"{blueprint}.widgets.map((one) => one.name)")
    assert [name.split("_")[0] for name in names] == ["text", "text", "fills", "seed", "preset", "cfg"]
    assert editor.value(f"{blueprint}.subgraph._nodes.every((one) => one.type in LiteGraph.registered_node_types)")
    editor.load("inpaint")  # copies its picture
    editor.browser.evaluate("await app.loadGraphData(args.graph, true, true, 'blueprint')", graph=blueprint_with_toy())
    presets = f"{blueprint}.subgraph._nodes.flatMap((one) => one.widgets ?? []).find((one) => one.name === 'preset')"
    editor.browser.evaluate(f"({presets}.value = 'fast', 1)")
    editor.press_run()
    shown = f"app.nodeOutputs[{node('PreviewImage')}.id]?.images?.length"
    editor.browser.wait(f"{shown} === 4", 120)
    editor.browser.wait(f"{presets}.options.getOptionLabel('fast').includes('about')", 10)


@pytest.mark.parametrize(
    ("language", "words", "title"),
    [
        ("zh", "修复", "VIPaint 选择方案"),
        ("ja", "補完", "VIPaint 候補を選ぶ"),
        ("fr", "raccord", "VIPaint Choisir un remplissage"),
    ],
)
def test_the_editor_speaks_the_artist_s_language(editor: Editor, language: str, words: str, title: str) -> None:
    """Names, inputs, the chooser's own words, help pages, and the search."""
    editor.open(Comfy_Locale=language)
    editor.load("inpaint")
    editor.browser.evaluate("(app.graph.add(LiteGraph.createNode('VIPaintCrop')), 1)")
    schema = editor.value("LiteGraph.registered_node_types.VIPaintChoose.title")
    assert schema == title
    assert editor.value(f"{node('VIPaintInpaint')}.inputs[0].localized_name") != "model"
    assert "Run the workflow" not in editor.value("document.querySelector('.vipaint-chooser .empty').textContent")
    page = editor.value(
        "await (await fetch('/extensions/vipaint/docs/VIPaintChoose/' + args.language + '.md')).text()".replace(
            "args.language", f"'{language}'"
        )
    )
    assert page.startswith(f"# {title}\n")
    editor.browser.evaluate(f"(app.canvas.selectNode({node('VIPaintInpaint')}), 1)")
    editor.browser.page("await page.getByTestId('info-button').click()")
    editor.browser.wait(
        "[...document.images].some((one) => /images.VIPaintInpaint.webp/.test(one.src) && one.naturalWidth)", 15
    )
    editor.browser.page("await page.keyboard.press('Escape')")
    editor.browser.evaluate("await app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    editor.browser.page("await page.keyboard.type(args.words)", words=words)
    editor.browser.page(
        "await page.locator('[role=option]').filter({hasText: 'VIPaint'}).first().waitFor({timeout: 10000})"
    )
