/** The Lua scripts, one for each verb, put together from their parts. */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"

/**
 * A file of `scripts/`. The build puts the text itself in the place of each call (see tsup.config.ts), so that
 * what is published reads no files.
 */
const lua = (name: string): string => readFileSync(new URL(`../scripts/${name}.lua`, import.meta.url), "utf8")

/** A script, and the name that Redis knows it by. */
export interface Script {
  readonly text: string
  readonly sha: string
}

const script = (...parts: ReadonlyArray<string>): Script => {
  const text = parts.join("\n")
  return { text, sha: createHash("sha1").update(text).digest("hex") }
}

const time = [lua("lib/time"), lua("lib/version")]
const format = lua("lib/format")
const common = [...time, format]
const streams = [format, lua("lib/ranges"), lua("lib/pages"), lua("lib/stream"), lua("lib/stream-claims")]
const stream = [...time, ...streams]
const bounds = lua("lib/bounds")
const parked = [...common, lua("lib/parked")]
const layout = [...time, lua("lib/layout")]
const asked = [...layout, lua("lib/arguments")]
const state = [format, lua("lib/state")]
const done = lua("lib/done")
const namespace = lua("lib/namespace")
const singles = lua("lib/singles")

/** The usual case first: what follows it is not even defined then. */
export const offsetScripts = {
  claim: script(...time, bounds, lua("offsets/claim-next"), ...streams, lua("offsets/claim")),
  complete: script(...time, bounds, lua("offsets/complete-next"), ...streams, lua("offsets/complete")),
  release: script(...stream, lua("offsets/release")),
  renew: script(...stream, lua("offsets/renew")),
  annotate: script(...stream, lua("offsets/annotate")),
  progress: script(...stream, lua("offsets/progress")),
  rewind: script(...stream, lua("offsets/rewind")),
  skip: script(...stream, lua("offsets/skip")),
  adopt: script(...stream, lua("offsets/adopt")),
  forget: script(...stream, lua("offsets/forget"))
}

export const keyScripts = {
  claim: script(
    ...asked,
    lua("keys/claim-singles"),
    ...state,
    lua("keys/claim-batch"),
    done,
    namespace,
    lua("lib/sweep"),
    lua("keys/claim")
  ),
  complete: script(
    ...asked,
    singles,
    lua("keys/complete-singles"),
    ...state,
    done,
    lua("keys/complete-batch"),
    namespace,
    lua("keys/complete")
  ),
  release: script(...asked, singles, lua("keys/release-singles"), ...state, namespace, lua("keys/release")),
  renew: script(...asked, ...state, namespace, lua("keys/renew")),
  lookup: script(...asked, ...state, done, namespace, lua("keys/lookup")),
  forget: script(...asked, ...state, done, namespace, lua("keys/forget")),
  held: script(...layout, ...state, namespace, lua("keys/held")),
  completed: script(...layout, ...state, done, lua("keys/completed"))
}

export const parkedScripts = {
  park: script(...parked, lua("parked/park")),
  page: script(...parked, lua("parked/page")),
  get: script(...parked, lua("parked/get")),
  remove: script(...parked, lua("parked/remove"))
}

export const startScripts = {
  open: script(lua("start/open")),
  probe: script(lua("start/probe"))
}
