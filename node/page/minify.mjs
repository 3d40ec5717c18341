// The web player's scripts as browsers load them: minified by terser into node/web/small, with their source maps.
// node/web/__init__.py sends them as long as the scripts beside it are those that they were made from.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { minify } from "terser";

const web = new URL("../web/", import.meta.url), small = new URL("small/", web);
const written = Object.fromEntries(readdirSync(web).filter(name => name.endsWith(".js")).sort()
  .map(name => [name, readFileSync(new URL(name, web), "utf8")]));
const imported = /^importScripts\("(.+)"\);\n/gm;

// account.js runs beside sw.js and names what is there, so both go by the same short names and nothing it names is dropped
const nameCache = {}, named = written["account.js"].match(/\w+/g);
const parts = ["sw.js", "account.js", "player.js", "join.js"];

rmSync(small, { recursive: true, force: true });
mkdirSync(small);
for (const part of parts) {
  const beside = [...written[part].matchAll(imported)].map(([, name]) => name), worker = part === "sw.js" || part === "account.js";
  const texts = Object.fromEntries([part, ...beside].map(name => [name, written[name].replace(imported, "")]));
  const { code, map } = await minify(texts, {
    ecma: 2020,
    compress: { passes: 3, toplevel: part !== "account.js", top_retain: worker ? named : [] },
    mangle: { toplevel: true },
    nameCache: worker ? nameCache : undefined,
    sourceMap: { includeSources: true, filename: part },
  });
  writeFileSync(new URL(part, small), code);
  writeFileSync(new URL(`${part}.map`, small), map);
}
writeFileSync(new URL("made", small), createHash("sha256").update(Object.values(written).join("")).digest("hex"));
