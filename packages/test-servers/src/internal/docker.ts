import { randomUUID } from "node:crypto"
import { exec, tail } from "./exec.ts"
import { type Supervisor, supervise } from "./Supervisor.ts"

/** The command may be there without an engine behind it, so the engine itself is asked. */
export const dockerAnswers = async (): Promise<boolean> =>
  (await exec("docker", ["version", "--format", "{{.Server.Version}}"], 10_000)).succeeded

const docker = async (args: ReadonlyArray<string>, timeoutMillis: number): Promise<void> => {
  const { succeeded, output } = await exec("docker", args, timeoutMillis)
  if (!succeeded) throw new Error(`docker ${args[0]} failed: ${tail(output, 5)}`)
}

export interface Container {
  /** Starts it, again after a kill, and answers how to see that it has ended. */
  readonly start: () => Promise<{ readonly exited: Promise<string> }>
  readonly kill: () => Promise<void>
  readonly pause: () => Promise<void>
  readonly resume: () => Promise<void>
  /** The last lines of what it printed. */
  readonly log: () => Promise<string>
  /** Removes it with all that it wrote. Idempotent. */
  readonly end: Supervisor["end"]
}

/**
 * Creates a container, which a supervisor removes when this process ends. `options` go between `docker create` and
 * the image, `args` behind it; an image that is not there yet is fetched.
 */
export const createContainer = async (container: {
  /** What the name begins with: `tidemark-kafka`. */
  readonly prefix: string
  readonly folder: string
  readonly image: string
  readonly options: ReadonlyArray<string>
  readonly args?: ReadonlyArray<string>
  /** How long a start may take, which is how long its end is watched for. */
  readonly startTimeoutMillis: number
}): Promise<Container> => {
  const { args = [], folder, image, options, prefix, startTimeoutMillis } = container
  const name = `${prefix}-${randomUUID()}`
  const supervisor = await supervise({
    folder,
    farewell: { command: "docker", args: ["rm", "--force", "--volumes", name] }
  })
  process.stderr.write(`Starting ${image} in Docker ...\n`)
  try {
    await docker(["create", "--name", name, ...options, image, ...args], 10 * 60_000)
  } catch (error) {
    await supervisor.end()
    throw error
  }
  return {
    start: async () => {
      await docker(["start", name], 60_000)
      const exited = exec("docker", ["wait", name], 2 * startTimeoutMillis).then(
        ({ output }) => `exit code ${output.trim()}`
      )
      return { exited }
    },
    kill: () => docker(["kill", name], 60_000),
    pause: () => docker(["pause", name], 60_000),
    resume: () => docker(["unpause", name], 60_000),
    log: async () => (await exec("docker", ["logs", "--tail", "10", name], 20_000)).output,
    end: supervisor.end
  }
}
