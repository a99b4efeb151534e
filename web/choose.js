// VIPaint Choose Fill in the editor: the chooser on the node, tied to its `chosen` widget and to what it has executed.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Chooser } from "./chooser.js";

const NODE = "VIPaintChoose";

function urls(files) {
  return (files ?? []).map((file) => api.apiURL(`/view?${new URLSearchParams(file)}`));
}

function styled() {
  const address = new URL("./chooser.css", import.meta.url).href;
  if (document.querySelector(`link[href="${address}"]`)) return;
  document.head.append(Object.assign(document.createElement("link"), { rel: "stylesheet", href: address }));
}

function shown(chooser, output) {
  if (!output?.vipaint_fills) return;
  chooser.show({
    fills: urls(output.vipaint_fills),
    originals: urls(output.vipaint_original),
    outlines: urls(output.vipaint_outline),
    spreads: urls(output.vipaint_spread),
    each: output.vipaint_each?.[0],
  });
}

app.registerExtension({
  name: "vipaint.choose",
  setup() {
    styled();
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const widget = node.widgets?.find((one) => one.name === "chosen");
    const chooser = new Chooser({
      onChoose(words) {
        if (!widget) return;
        widget.value = words;
        widget.callback?.(words);
        node.graph?.setDirtyCanvas(true, true);
      },
    });
    const dom = node.addDOMWidget("vipaint_chooser", "vipaint_chooser", chooser.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => 260,
    });
    dom.serialize = false;
    node.vipaintChooser = chooser;
    node.setSize([Math.max(node.size[0], 440), Math.max(node.size[1], 520)]);
    const { onExecuted, onConfigure, onRemoved } = node;
    node.onExecuted = function (output) {
      onExecuted?.apply(this, arguments);
      shown(chooser, output);
      chooser.read(widget?.value);
    };
    node.onConfigure = function () {
      onConfigure?.apply(this, arguments);
      chooser.read(widget?.value);
    };
    node.onRemoved = function () {
      onRemoved?.apply(this, arguments);
      chooser.remove();
    };
    if (widget) {
      const { callback } = widget;
      widget.callback = function (value) {
        const result = callback?.apply(this, arguments);
        // Typed by hand; the chooser's own choice is there already.
        if (value !== chooser.words) {
          chooser.read(value);
          chooser.isStale = chooser.fills.length > 0;
          chooser.draw();
        }
        return result;
      };
      chooser.read(widget.value);
    }
  },
  async afterConfigureGraph() {
    // Results of a workflow whose tab was left and opened again come back a moment later.
    setTimeout(() => {
      for (const node of app.graph?._nodes ?? []) {
        if (node.comfyClass !== NODE || node.vipaintChooser?.fills.length) continue;
        shown(node.vipaintChooser, app.nodeOutputs?.[node.id]);
        node.vipaintChooser.read(node.widgets?.find((one) => one.name === "chosen")?.value);
      }
    }, 300);
  },
});
