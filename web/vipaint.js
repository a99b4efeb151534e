// What the pack adds to the editor as a whole: colours of its sockets, errors that name the input, example pictures.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { nodeById } from "./graph.js";
import { errorText, loadTexts, text } from "./texts.js";

const COLOURS = { VIPAINT_POSTERIOR: "#e0a458", VIPAINT_CROP: "#7fb069" };
const LOADER = "VIPaintLoadPosterior";
const EXAMPLE = /^vipaint_[a-z_]+\.(png|jpg)$/;
// VIPaint Inpaint, input `mask`: expected ...
const NAMED = /(VIPaint [\w ]+?)?,? ?input `(\w+)`: (.*)/s;

/** Node, input and what is wrong with it, of an error's text. */
export function parseError(message) {
  const found = NAMED.exec(message ?? "");
  return found && { node: found[1], input: found[2], words: found[3].trim() };
}

function report(id, message) {
  const error = parseError(message);
  const node = nodeById(id);
  if (!error || !node) return false;
  const slot = node.inputs?.find((one) => one.name === error.input);
  if (slot) slot.hasErrors = true;
  node.has_errors = true;
  app.extensionManager.toast.add({
    severity: "error",
    summary: text("error", { node: error.node ?? node.title, input: error.input }),
    detail: errorText(error.words),
    life: 20000,
  });
  app.canvas?.setDirty(true, true);
  return true;
}

/** The server's account of inputs that it refuses names no slot where none is connected: the error's text does. */
function reportRefused(errors) {
  for (const [id, { class_type: kind, errors: found }] of Object.entries(errors ?? {})) {
    if (!kind?.startsWith("VIPaint")) continue;
    for (const one of found) {
      const error = one.type === "custom_validation_failed" && parseError(one.details);
      if (!error || one.vipaint) continue;
      one.vipaint = true;
      one.extra_info = { ...one.extra_info, input_name: error.input };
      one.details = `${error.input} - ${error.words}`;
      report(id, `input \`${error.input}\`: ${error.words}`);
    }
  }
}

/** Files of the input folder, as Load Image lists them; a file that is asked for and is not there would be an error. */
async function inputFiles() {
  const { LoadImage: loader } = await (await api.fetchApi("/object_info/LoadImage")).json();
  const [kind, options] = loader.input.required.image;
  return Array.isArray(kind) ? kind : options?.options ?? [];
}

/** Copies the pack's example pictures that a workflow names into the input folder, where they are not there yet. */
async function copyExamples(graphData) {
  const graphs = [graphData, ...(graphData?.definitions?.subgraphs ?? [])];
  const nodes = graphs.flatMap((graph) => graph?.nodes ?? []).filter((node) => node?.type?.startsWith("LoadImage"));
  const wanted = new Set(nodes.map((node) => node.widgets_values?.[0]).filter((name) => EXAMPLE.test(name ?? "")));
  const copied = [];
  const there = wanted.size ? await inputFiles() : [];
  for (const name of wanted) {
    try {
      if (!there.includes(name)) {
        const picture = await fetch(new URL(`./examples/${name}`, import.meta.url));
        if (!picture.ok) throw new Error(picture.statusText);
        const form = new FormData();
        form.append("image", new File([await picture.blob()], name));
        const answer = await api.fetchApi("/upload/image", { method: "POST", body: form });
        if (!answer.ok) throw new Error(answer.statusText);
      }
      copied.push(name);
    } catch (error) {
      app.extensionManager.toast.add({
        severity: "warn",
        summary: "VIPaint",
        detail: text("example", { reason: error.message }),
        life: 20000,
      });
    }
  }
  return copied;
}

function offer(node, names) {
  const widget = node.comfyClass?.startsWith("LoadImage") && node.widgets?.find((one) => one.name === "image");
  const values = widget?.options?.values;
  if (Array.isArray(values)) values.push(...names.filter((name) => !values.includes(name)));
}

/** Colours of the pack's sockets. A palette that is loaded takes away those of types that it does not know. */
function colour() {
  Object.assign(app.canvas?.default_connection_color_byType ?? {}, COLOURS);
  Object.assign(app.canvas?.default_connection_color_byTypeOff ?? {}, COLOURS);
  Object.assign(window.LGraphCanvas?.link_type_colors ?? {}, COLOURS);
  for (const [type, value] of Object.entries(COLOURS))
    document.documentElement.style.setProperty(`--color-datatype-${type}`, value);
  app.canvas?.setDirty(true, true);
}

let examples = [];

app.registerExtension({
  name: "vipaint",
  async init() {
    await loadTexts();
  },
  setup() {
    colour();
    app.ui.settings.addEventListener("Comfy.ColorPalette.change", () => setTimeout(colour, 500));
    api.addEventListener("execution_error", ({ detail }) => {
      if (detail.node_type?.startsWith("VIPaint")) report(detail.node_id, detail.exception_message);
    });
    // No event tells of inputs that the server refuses: they are looked for after each press of Run.
    api.addEventListener("promptQueueing", () => {
      for (const wait of [200, 600, 1500, 3000]) setTimeout(() => reportRefused(app.lastNodeErrors), wait);
    });
    api.addEventListener("executed", async ({ detail }) => {
      const saved = detail.output?.vipaint_saved?.[0];
      if (!saved) return;
      // A new file: lists of files are read again, and a loader that has none yet takes it.
      await app.refreshComboInNodes?.();
      for (const node of app.graph?._nodes ?? []) {
        const file = node.comfyClass === LOADER && node.widgets?.find((one) => one.name === "file");
        if (file && !file.value) file.value = saved;
      }
    });
  },
  async beforeConfigureGraph(graphData) {
    examples = await copyExamples(graphData);
  },
  nodeCreated(node) {
    if (node.comfyClass?.startsWith("VIPaint")) colour();
    const file = node.comfyClass === LOADER && node.widgets?.find((one) => one.name === "file");
    // Without any file the editor would show `undefined`.
    if (file) file.value ??= "";
  },
  loadedGraphNode(node) {
    offer(node, examples);
  },
  afterConfigureGraph() {
    for (const node of app.graph?._nodes ?? []) offer(node, examples);
  },
});
