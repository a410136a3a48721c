import { execFile } from "node:child_process"

/** What a program printed, and whether it succeeded; a missing program is a failure like any other. */
export interface Outcome {
  readonly succeeded: boolean
  readonly output: string
}

/** Runs a short program without a shell, in `folder` or where we are; killed after `timeoutMillis`. */
export const exec = (
  command: string,
  args: ReadonlyArray<string>,
  timeoutMillis: number,
  folder?: string
): Promise<Outcome> =>
  new Promise((resolve) => {
    const options = { timeout: timeoutMillis, killSignal: "SIGKILL", cwd: folder } as const
    execFile(command, args, options, (error, stdout, stderr) =>
      resolve({ succeeded: error === null, output: `${stdout}${stderr}` || (error?.message ?? "") })
    )
  })

/** The last lines of a program's output, for an error message. */
export const tail = (output: string, lines: number): string =>
  output.trimEnd().split("\n").slice(-lines).join("\n")
