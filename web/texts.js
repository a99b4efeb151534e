// Words of the pack's own parts of the editor, in the editor's language.

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

export const ENGLISH = {
  grid: "All fills",
  compare: "Before and after",
  flicker: "Flicker between two fills",
  spread: "Where the fills differ",
  outline: "Outline of the hole",
  full: "Full screen",
  choose: "Choose this fill",
  chosen: "chosen: {numbers}",
  nothing: "nothing chosen: what follows waits",
  waiting: "Run the workflow: the fills appear here.",
  picture: "picture {number} of {count}",
  before: "before",
  after: "after",
  stale: "Run again to hand on what is chosen.",
  hint: "click: large · double click or Enter: choose · Shift: several · arrows, 1-9 · wheel: zoom · B F U O Esc",
  error: "{node}: input {input}",
  error_words: "expected {expected}, found {found}. {fix}",
  price_passes: "{preset} · {passes} passes",
  price_time: "{preset} · about {time}",
  below_second: "a second",
  seconds: "{number} s",
  minutes: "{number} min",
  example: "The example picture could not be copied into ComfyUI's input folder: {reason}",
};

let translated = {};

/** Reads the words of the chosen language, once, before nodes are made. */
export async function loadTexts() {
  try {
    const all = await (await api.fetchApi("/i18n")).json();
    translated = all[app.ui.settings.getSettingValue("Comfy.Locale") ?? "en"]?.vipaint ?? {};
  } catch {
    translated = {};
  }
}

/** The word for a key, with {name} replaced by values. */
export function text(key, values = {}) {
  let found = translated[key] ?? ENGLISH[key];
  for (const [name, value] of Object.entries(values)) found = found.replaceAll(`{${name}}`, value);
  return found;
}

const NUMBER = /\d+(?:\.\d+)?/g;
const ERROR = /^expected (.*?), found (.*?)\. (.*)$/s;

/** A sentence of an error, with its own numbers; the English one where there is no translation. */
function sentence(english) {
  let count = 0;
  const found = translated.errors?.[english.replace(NUMBER, () => `{${++count}}`)];
  if (!found) return english;
  const numbers = english.match(NUMBER) ?? [];
  return found.replace(/\{(\d+)\}/g, (_, index) => numbers[index - 1]);
}

/** What is wrong with an input, of an error's English text. */
export function errorText(english) {
  const parts = ERROR.exec(english);
  if (!parts) return english;
  const [expected, found, fix] = parts.slice(1).map(sentence);
  return text("error_words", { expected, found, fix });
}
