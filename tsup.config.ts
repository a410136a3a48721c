import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { defineConfig } from "tsup"

/**
 * The JavaScript of every published package (TypeScript 7 writes the declarations, see tsconfig.build.json).
 * One file out per file in: a consumer's bundler can then drop the modules it doesn't use, which it couldn't
 * inside one bundle, since `export * as Name` would become an object there.
 */
export default defineConfig({
  entry: ["src/**/*.ts"],
  format: "esm",
  target: "node22",
  platform: "node",
  sourcemap: true,
  clean: true,
  dts: false,
  removeNodeProtocol: false,
  silent: true,
  esbuildPlugins: [
    {
      // `lua("name")` becomes the text of that file: a bundle, or a program in one file, has no files to read
      name: "scripts-as-text",
      setup(build) {
        build.onLoad({ filter: /[\\/]store-redis[\\/]src[\\/]internal[\\/]scripts\.ts$/ }, ({ path }) => ({
          loader: "ts",
          contents: readFileSync(path, "utf8").replace(/\blua\("([^"]+)"\)/g, (_, name) =>
            JSON.stringify(readFileSync(join(dirname(path), `../scripts/${name}.lua`), "utf8"))
          )
        }))
      }
    },
    {
      name: "one-file-out-per-file-in",
      setup(build) {
        build.onResolve({ filter: /.*/ }, ({ kind, path }) => {
          if (kind === "entry-point") return undefined
          const isRelative = path.startsWith("./") || path.startsWith("../")
          return { path: isRelative ? path.replace(/\.ts$/, ".js") : path, external: true }
        })
      }
    }
  ]
})
