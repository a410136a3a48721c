import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { temporaryFolder } from "./files.ts"

const home = new URL("..", import.meta.url).pathname

/** The programs of the README, in its order. */
const programs = [...readFileSync(join(home, "README.md"), "utf8").matchAll(/```ts\n(.*?)```/gs)].map(
  ([, program]) => program
)

const run = (program: string) => {
  const flags = ["--conditions=@tidemark/source", "--input-type=module-typescript", "--eval"]
  return Effect.promise(() => promisify(execFile)(process.execPath, [...flags, program], { cwd: home }))
}

it.effect("the README's example of exactly once runs, however often", () =>
  Effect.gen(function* () {
    const program = programs[1].replace(
      '"billing.db"',
      JSON.stringify(join(yield* temporaryFolder, "billing.db"))
    )
    expect((yield* run(program)).stdout).toBe("order-4711 order-4712\n")
    expect((yield* run(program)).stdout).toBe("order-4711 order-4712\n")
  })
)

it.effect("the README's example runs, and finds its key again", () =>
  Effect.gen(function* () {
    const program = programs[0].replace(
      '"billing.db"',
      JSON.stringify(join(yield* temporaryFolder, "billing.db"))
    )
    expect((yield* run(program)).stdout).toBe("Processed\n")
    expect((yield* run(program)).stdout).toBe("Duplicate\n")
  })
)
