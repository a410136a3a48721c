/** Progress bars on a terminal, a line for each phase elsewhere. Written to stderr, so that stdout is the result. */
const width = 30

export interface Progress {
  /** What goes on now. */
  readonly phase: (words: string) => void
  /** How far it is, from 0 to 1. */
  readonly at: (share: number, words: string) => void
  readonly end: (words: string) => void
}

export const makeProgress = (name: string, quiet: boolean): Progress => {
  const { stderr } = process
  const isTerminal = stderr.isTTY === true && !quiet
  let doing = ""
  let drawnAt = 0
  const draw = (share: number, words: string): void => {
    const full = Math.round(Math.min(1, share) * width)
    const bar = "#".repeat(full) + "-".repeat(width - full)
    const line = `${name.padEnd(22)} [${bar}] ${String(Math.floor(share * 100)).padStart(3)} %  ${words}`
    stderr.write(`\r\x1b[2K${line.slice(0, Math.max(40, (stderr.columns ?? 100) - 1))}`)
  }
  let share = 0
  return {
    phase: (words) => {
      doing = words
      if (isTerminal) draw(share, words)
      else if (!quiet) stderr.write(`${name}: ${words}\n`)
    },
    at: (now, words) => {
      share = now
      if (!isTerminal || performance.now() - drawnAt < 80) return
      drawnAt = performance.now()
      draw(share, `${words}  ${doing}`)
    },
    end: (words) => {
      if (isTerminal) {
        draw(1, words)
        stderr.write("\n")
      } else if (!quiet) {
        stderr.write(`${name}: ${words}\n`)
      }
    }
  }
}
