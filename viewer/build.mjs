// Build the pages into the packages of emulator and demo, or the tests or the page of LiveAvatar's web SDK into build/.
import { build } from "esbuild";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const PAGES = [
  { folder: here("../server/liveavatar_emulator/viewer_page"), source: here("src") },
  { folder: here("../demo/liveavatar_demo/voice_page"), source: here("src/voice") },
];
const TESTS = here("build/tests");
const WEB_SDK = here("build/web-sdk");

async function pages() {
  const texts = await licences();
  for (const { folder, source } of PAGES) {
    await page(folder, source, texts);
  }
}

async function page(folder, source, texts) {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await build({
    entryPoints: { page: `${source}/main.ts`, style: `${source}/style.css` },
    outdir: folder,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["chrome109", "firefox115", "safari16.4"],
    legalComments: "none", // licences.txt has the full texts
    logLevel: "warning",
  });
  await writeFile(`${folder}/licences.txt`, texts);
  await copyFile(here("src/icon.svg"), `${folder}/icon.svg`);
  // index.html is copied last, so a page with an index is complete.
  await copyFile(`${source}/index.html`, `${folder}/index.html`);
}

/** Return the licences of all packages in the page. livekit-client bundles its own dependencies. */
async function licences() {
  const lock = JSON.parse(await readFile(here("package-lock.json"), "utf8"));
  const folders = Object.keys(lock.packages).filter((folder) => folder !== "" && !lock.packages[folder].dev);
  const texts = [];
  for (const folder of folders.sort()) {
    const { name, version, license } = JSON.parse(await readFile(here(`${folder}/package.json`), "utf8"));
    const file = (await readdir(here(folder))).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file === undefined ? "" : await readFile(here(`${folder}/${file}`), "utf8");
    texts.push(`${name} ${version}: ${license}\n\n${text.trim()}\n`);
  }
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}

async function tests() {
  await rm(TESTS, { recursive: true, force: true });
  const names = (await readdir(here("tests"))).filter((name) => name.endsWith(".test.ts"));
  await build({
    entryPoints: names.map((name) => here(`tests/${name}`)),
    outdir: TESTS,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    sourcemap: "inline",
    logLevel: "warning",
  });
}

/** Build the page with which `tests/browser` drives LiveAvatar's own web SDK; not part of any distribution. */
async function webSdk() {
  await rm(WEB_SDK, { recursive: true, force: true });
  await build({
    entryPoints: [here("web-sdk/page.js")],
    outdir: WEB_SDK,
    bundle: true,
    format: "esm",
    target: ["chrome109"],
    logLevel: "warning",
  });
  await copyFile(here("web-sdk/index.html"), `${WEB_SDK}/index.html`);
}

const targets = { pages, tests, "web-sdk": webSdk };
const target = targets[process.argv[2]];
if (target === undefined) {
  console.error(`build.mjs: name a target: ${Object.keys(targets).join(", ")}`);
  process.exit(2);
}
await target();
