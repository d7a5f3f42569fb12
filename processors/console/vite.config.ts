import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const here = import.meta.dirname;
const STATIC = join(here, "../gatebook/processors/serve/static");
/** What the build is made of; the Python test of the committed build reads the same list. */
const SOURCES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "src"];

function filesBelow(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path).flatMap((name) => filesBelow(join(path, name)));
}

function sha256(data: Buffer | string): string {
  return createHash("sha256").update(data).digest("hex");
}

/** One line `digest  path` a file, sorted by path, as sha256sum prints them; then digested. */
function digestOf(root: string, paths: string[]): { digest: string; files: Record<string, string> } {
  const files = Object.fromEntries(
    paths
      .map((path) => [relative(root, path).split(sep).join("/"), sha256(readFileSync(path))] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  const lines = Object.entries(files).map(([path, digest]) => `${digest}  ${path}\n`);
  return { digest: sha256(lines.join("")), files };
}

/** Writes build.json: which sources this build is of, and the digest of each built file. */
function stamp(): Plugin {
  return {
    name: "gatebook-stamp",
    apply: "build",
    closeBundle() {
      const sources = digestOf(here, SOURCES.flatMap((name) => filesBelow(join(here, name))));
      const built = filesBelow(STATIC).filter((path) => !path.endsWith("build.json"));
      const content = { source_digest: sources.digest, files: digestOf(STATIC, built).files };
      writeFileSync(join(STATIC, "build.json"), JSON.stringify(content, null, 2) + "\n");
    },
  };
}

export default defineConfig({
  plugins: [react(), stamp()],
  build: {
    outDir: STATIC,
    emptyOutDir: true,
    assetsInlineLimit: 0, // the content security policy allows no data: URLs
    modulePreload: { polyfill: false },
    target: "es2022",
  },
  server: { proxy: { "/api": "http://127.0.0.1:8321", "/login": "http://127.0.0.1:8321" } },
});
