// Drives one Chromium for tools/browser.py: a line of JSON on standard input is a piece of code to run, its result a line
// on standard output. Usage: node browser_driver.mjs FOLDER_OF_PLAYWRIGHT_CORE CHROMIUM PROFILE

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, executablePath, profile] = process.argv.slice(2);
const { chromium } = createRequire(`${folder}/`)("playwright-core");
const quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", ...quiet],
  viewport: { width: 1600, height: 1000 },
});
const page = context.pages()[0] ?? (await context.newPage());
const messages = [];
page.on("console", (message) => messages.push({ type: message.type(), text: message.text(), url: message.location().url }));
page.on("pageerror", (error) => messages.push({ type: "pageerror", text: String(error), url: "" }));

const Code = Object.getPrototypeOf(async function () {}).constructor;
const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
answer({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const { code, args } = JSON.parse(line);
  try {
    const value = await new Code("page", "context", "messages", "args", code)(page, context, messages, args);
    answer({ value: value ?? null });
  } catch (error) {
    answer({ error: String(error?.stack ?? error) });
  }
}
await context.close();
