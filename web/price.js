// What presets cost, beside their names: passes through the model and, once that model has painted here, seconds.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { allNodes, nodeById, source } from "./graph.js";
import { text } from "./texts.js";

const NODES = ["VIPaintInpaint", "VIPaintFit"];
// A setting that the user does not see, kept in the user's folder: seconds of one pass by model file.
const SECONDS = "VIPaint.SecondsPerPass";
const MODEL_FILE = /\.(safetensors|sft|ckpt|pt|pth|gguf)$/i;

let prices = {};

const secondsPerPass = () => app.extensionManager.setting.get(SECONDS) ?? {};

const widgetOf = (node, name) => node.widgets?.find((one) => one.name === name);

/** The file of the model that reaches a node, "" where no loader is found. */
function modelFile(node) {
  for (let steps = 0; node && steps < 50; steps++) {
    const file = steps && node.widgets?.find((one) => MODEL_FILE.test(String(one.value)));
    if (file) return file.value;
    const slot = node.inputs?.findIndex((one) => one.type === "MODEL") ?? -1;
    node = slot < 0 ? null : source(node, slot);
  }
  return "";
}

/** The host's passes for one of ours: with guidance it asks for both prompts. */
const prompts = (node) => (Number(widgetOf(node, "cfg")?.value ?? 1) === 1 ? 1 : 2);

function duration(value) {
  if (value < 1) return text("below_second");
  return value < 90 ? text("seconds", { number: Math.round(value) }) : text("minutes", { number: Math.round(value / 60) });
}

/** A preset's name with its price on this node. */
export function priced(node, preset) {
  const price = prices[preset];
  if (!price) return preset;
  // A posterior that is fitted alone draws its chains.
  const fills = Number(widgetOf(node, "fills")?.value ?? price.chains);
  const first = Math.min(fills, 1);
  const chains = Math.max(Math.min(fills, price.chains) - 1, 0);
  const passes = price.fit + price.fill * first + price.chain * chains + price.further * (fills - first - chains);
  const each = secondsPerPass()[modelFile(node)];
  if (!passes) return preset;
  if (!each) return text("price_passes", { preset, passes });
  return text("price_time", { preset, time: duration(passes * prompts(node) * each) });
}

function redraw(node) {
  const widget = widgetOf(node, "preset");
  // A new list: the editor's own lists show their labels again.
  if (Array.isArray(widget?.options?.values)) widget.options.values = [...widget.options.values];
  node.graph?.setDirtyCanvas(true, true);
}

function redrawAll() {
  for (const node of allNodes()) if (NODES.includes(node.comfyClass)) redraw(node);
  app.canvas?.setDirty(true, true);
}

async function learn(node, [passes, taken]) {
  const file = modelFile(node);
  const found = taken / passes / prompts(node);
  if (!file || !(found > 0) || secondsPerPass()[file] === found) return;
  await app.extensionManager.setting.set(SECONDS, { ...secondsPerPass(), [file]: found });
  redrawAll();
}

app.registerExtension({
  name: "vipaint.price",
  settings: [{ id: SECONDS, name: "VIPaint: seconds of one pass by model file", type: "hidden", defaultValue: {} }],
  async setup() {
    api.addEventListener("executed", ({ detail }) => {
      const cost = detail.output?.vipaint_cost;
      const node = cost && nodeById(detail.node);
      if (node) learn(node, cost);
    });
    const answer = await api.fetchApi("/vipaint/prices");
    if (answer.ok) prices = await answer.json();
    redrawAll();
  },
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return;
    const preset = widgetOf(node, "preset");
    if (preset) preset.options.getOptionLabel = (value) => (value ? priced(node, value) : "");
    for (const name of ["fills", "cfg"]) {
      const widget = widgetOf(node, name);
      if (!widget) continue;
      const { callback } = widget;
      widget.callback = function () {
        const result = callback?.apply(this, arguments);
        redraw(node);
        return result;
      };
    }
  },
});
