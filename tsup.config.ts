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
