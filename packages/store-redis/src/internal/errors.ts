/** What Redis and its client answer when they refuse, as errors that tell what to do. */
import { StoreError, type StoreErrorReason } from "@tidemark/core"

export const storeName = "redis"

interface Kind {
  readonly reason: StoreErrorReason
  readonly retriable: boolean
  readonly advice: string
}

const unavailable: Kind = {
  reason: "Unavailable",
  retriable: true,
  advice: "Redis could not be reached, or the connection broke: is it running, at this address?"
}
const refused: Kind = {
  reason: "Refused",
  retriable: false,
  advice: "check user, password and the rights of the user (see the README of @tidemark/store-redis)"
}
const moved: Kind = {
  reason: "Moved",
  retriable: true,
  advice: "the cluster is moving or has lost the slot of this key; it passes, or `CLUSTER INFO` tells why not"
}
const busy: Kind = {
  reason: "Busy",
  retriable: true,
  advice: "another script holds up the server (`SCRIPT KILL` ends it), or one was killed"
}

/** By the code that begins an error of Redis. */
const kinds: Readonly<Record<string, Kind>> = {
  OOM: {
    reason: "Full",
    retriable: true,
    advice:
      "Redis has reached maxmemory; raise it, or shorten the retention. What is claimed can still be settled"
  },
  READONLY: {
    reason: "ReadOnly",
    retriable: true,
    advice: "this server is a replica (after a failover?); point the store at the primary, or use Sentinel"
  },
  BUSY: busy,
  LOADING: { reason: "Loading", retriable: true, advice: "Redis still reads its data from disk" },
  MASTERDOWN: unavailable,
  NOREPLICAS: {
    reason: "ReadOnly",
    retriable: true,
    advice: "too few replicas are connected (min-replicas-to-write)"
  },
  MISCONF: {
    reason: "ReadOnly",
    retriable: true,
    advice: "Redis can't save to its disk and takes no writes; look into its log"
  },
  MOVED: moved,
  ASK: moved,
  TRYAGAIN: moved,
  CLUSTERDOWN: moved,
  CROSSSLOT: moved,
  WRONGTYPE: {
    reason: "Corrupt",
    retriable: false,
    advice:
      "a key under our prefix is not ours; give the store a prefix of its own, or delete what does not belong"
  },
  NOAUTH: refused,
  WRONGPASS: refused,
  NOPERM: refused,
  NOSCRIPT: { reason: "Unavailable", retriable: true, advice: "the script was flushed; ask again" }
}

/** The code of an error of Redis; one that came from within a script stands in its message in older versions. */
const codeOf = (message: string): string | undefined => {
  const code = /^([A-Z]+) /.exec(message)?.[1]
  if (code !== undefined && code !== "ERR") return code
  return /(?:^|[ :])-([A-Z]{3,}) /.exec(message)?.[1]
}

const kindOf = (error: Error): Kind | undefined => {
  const { message } = error
  const known = kinds[codeOf(message) ?? ""]
  if (known !== undefined) return known
  if (/can't run this command|no permissions|NOPERM/i.test(message)) return refused
  if (/AUTH|without any password|invalid username-password/i.test(message)) return refused
  if (/script killed|killed by user/i.test(message)) return busy
  if (/Too many Cluster redirections|non local key|TRYAGAIN /.test(message)) return moved
  if (/refresh slots cache|None of startup nodes|Cluster isn't ready|Cluster is ended/i.test(message))
    return unavailable
  if (/Connection is closed|aborted due to connection|max retries per request|isn't writeable/i.test(message))
    return unavailable
  if (/All sentinels are unreachable/.test(message)) return unavailable
  return "code" in error || "errno" in error || "syscall" in error ? unavailable : undefined
}

/** Whether the error says that what was asked of Redis is not allowed to us, which no waiting will change. */
export const isRefusal = (error: Error): boolean => kindOf(error)?.reason === "Refused"

export const failure = (
  verb: string,
  reason: StoreErrorReason,
  detail: string,
  retriable: boolean,
  cause?: unknown
): StoreError =>
  new StoreError({
    store: storeName,
    verb,
    reason,
    detail,
    retriable,
    ...(cause === undefined ? {} : { cause })
  })

/** An error of ioredis or Redis as ours. */
export const fromRedis = (verb: string, error: Error): StoreError => {
  const version = /TIDEMARKFORMAT (\S+)/.exec(error.message)?.[1]
  if (version !== undefined) return wrongVersion(verb, version, error)
  const kind = kindOf(error)
  return kind === undefined
    ? failure(verb, "Corrupt", `an answer that was not expected: ${error.message}`, false, error)
    : failure(verb, kind.reason, `${error.message}; ${kind.advice}`, kind.retriable, error)
}

export const wrongVersion = (verb: string, version: string, cause?: unknown): StoreError =>
  failure(
    verb,
    "WrongVersion",
    `the data under this prefix has format ${version}, this version of @tidemark/store-redis reads format 1; ` +
      "use the version that wrote it, or another prefix",
    false,
    cause
  )
