/**
 * What the scripts for idempotency keys are asked, and what they answer: several requests of one verb at a time, in
 * msgpack. See scripts/keys/*.lua. Requests of one key each, without anything else to say, are packed as the fields that
 * they are about: those the scripts answer in a shorter way.
 */
import type { Protocol } from "@tidemark/core"
import { Packer } from "./Packer.ts"

const packer = new Packer()

export interface KeyRequest {
  readonly namespace: string
  readonly claimId: string
}

export interface ClaimRequest extends KeyRequest {
  readonly items: ReadonlyArray<Protocol.KeyItem>
  readonly owner: string
  readonly leaseMillis: number
}

export interface CompleteRequest extends KeyRequest {
  readonly items: ReadonlyArray<Protocol.KeyCompletion>
  readonly retentionMillis: number
}

export interface ReleaseRequest extends KeyRequest {
  /** `undefined`: all that the claim holds. */
  readonly keys: ReadonlyArray<string> | undefined
}

export interface RenewRequest extends KeyRequest {
  readonly leaseMillis: number
}

/** {STATE, claim, key, claim, key, ...} */
const packFields = <Request extends KeyRequest>(
  requests: ReadonlyArray<Request>,
  keyOf: (request: Request) => string
): void => {
  packer.array(1 + 2 * requests.length).state()
  for (const request of requests) packer.claim(request.claimId).key(keyOf(request))
}

/** Texts of items, with nil where one has none; "" where none has one. */
const packOptional = <A>(items: ReadonlyArray<A>, textOf: (item: A) => string | undefined): void => {
  if (items.every((item) => textOf(item) === undefined)) {
    packer.text("")
    return
  }
  const header = packer.open()
  packer.array(items.length)
  for (const item of items) {
    const text = textOf(item)
    if (text === undefined) packer.nil()
    else packer.text(text)
  }
  packer.close(header)
}

const packKeys = (items: ReadonlyArray<{ readonly key: string }>): void => {
  const header = packer.open()
  packer.array(items.length)
  for (const { key } of items) packer.key(key)
  packer.close(header)
}

/** What a claim begins with, as it is stored, with its place among those of a script. */
const packHead = ({ items, owner }: ClaimRequest, place: number): void => {
  const header = packer.open()
  packer.integer(items.length).integer(place).text(owner)
  packKeys(items)
  packOptional(items, fingerprintOf)
  packer.close(header)
}

const fingerprintOf = ({ fingerprint }: Protocol.KeyItem): string | undefined => fingerprint
const resultOf = ({ result }: Protocol.KeyCompletion): string | undefined => result
const onlyKeyOf = ({ items }: ClaimRequest | CompleteRequest): string => items[0].key

export const packClaims = (requests: ReadonlyArray<ClaimRequest>): Buffer => {
  const { leaseMillis } = requests[0]
  const areSingles = requests.every(
    ({ items, leaseMillis: millis }) =>
      items.length === 1 && items[0].fingerprint === undefined && millis === leaseMillis
  )
  if (areSingles) {
    packer.array(3)
    packFields(requests, onlyKeyOf)
    packer.array(requests.length)
    for (let place = 0; place < requests.length; place++) packHead(requests[place], place)
    packer.integer(Math.ceil(leaseMillis))
  } else {
    packer.array(3 * requests.length)
    for (const request of requests) {
      packer.text(request.claimId)
      packHead(request, 0)
      packer.integer(Math.ceil(request.leaseMillis))
    }
  }
  return packer.take()
}

export const packCompletions = (requests: ReadonlyArray<CompleteRequest>): Buffer => {
  const { retentionMillis } = requests[0]
  const areSingles = requests.every(
    ({ items, retentionMillis: millis }) =>
      items.length === 1 && items[0].result === undefined && millis === retentionMillis
  )
  if (areSingles) {
    packer.array(2)
    packFields(requests, onlyKeyOf)
    packer.integer(Math.ceil(retentionMillis))
  } else {
    packer.array(4 * requests.length)
    for (const { claimId, items, retentionMillis } of requests) {
      packer.text(claimId).integer(Math.ceil(retentionMillis))
      packKeys(items)
      packOptional(items, resultOf)
    }
  }
  return packer.take()
}

export const packReleases = (requests: ReadonlyArray<ReleaseRequest>): Buffer => {
  if (requests.every(({ keys }) => keys?.length === 1)) {
    packer.array(1)
    packFields(requests, ({ keys }) => (keys as ReadonlyArray<string>)[0])
  } else {
    packer.array(2 * requests.length)
    for (const { claimId, keys } of requests) {
      packer.text(claimId)
      if (keys === undefined) {
        packer.text("")
      } else {
        const header = packer.open()
        packer.keys(keys).close(header)
      }
    }
  }
  return packer.take()
}

export const packRenewals = (requests: ReadonlyArray<RenewRequest>): Buffer => {
  packer.array(2 * requests.length)
  for (const { claimId, leaseMillis } of requests) packer.text(claimId).integer(Math.ceil(leaseMillis))
  return packer.take()
}

export const packKeyList = (keys: ReadonlyArray<string>): Buffer => packer.keys(keys).take()

/** 0: the claim id is in use for other keys; a token: all were granted. */
type ClaimReply = number | [codes: string, token: number, until: number, more: Array<unknown>]

/** With when that was, by the clock of Redis; and, where all was granted, the first token, which the others follow. */
export type ClaimsReply = [now: number, firstOrAnswers: number | ReadonlyArray<ClaimReply>]

/** The answers to one of several requests; `undefined`: the claim id is in use for other keys. */
export const claimAnswers = (
  [now, all]: ClaimsReply,
  { items, leaseMillis }: ClaimRequest,
  place: number
): ReadonlyArray<Protocol.KeyClaimAnswer> | undefined => {
  const reply = typeof all === "number" ? all + place : all[place]
  if (reply === 0) return undefined
  if (typeof reply === "number") {
    const claimed: Protocol.KeyClaimAnswer = {
      _tag: "Claimed",
      token: reply,
      until: now + Math.ceil(leaseMillis)
    }
    return items.length === 1 ? [claimed] : new Array<Protocol.KeyClaimAnswer>(items.length).fill(claimed)
  }
  const [codes, token, until, more] = reply
  const claimed: Protocol.KeyClaimAnswer = { _tag: "Claimed", token, until }
  let next = 0
  return Array.from(codes, (code): Protocol.KeyClaimAnswer => {
    switch (code) {
      case "g":
        return claimed
      case "c":
        return { _tag: "Completed", result: undefined }
      case "r":
        return { _tag: "Completed", result: more[next++] as string }
      case "m":
        return { _tag: "Mismatch", fingerprint: more[next++] as string }
      default:
        return { _tag: "InFlight", until: more[next++] as number, owner: more[next++] as string }
    }
  })
}

const completions: Readonly<Record<string, Protocol.KeyCompleteAnswer>> = {
  c: "Completed",
  a: "AlreadyCompleted",
  l: "LeaseLost"
}

const oneCompleted: ReadonlyArray<Protocol.KeyCompleteAnswer> = ["Completed"]

/** 1: all were completed; else for each request "" where all were, or a code for each key. */
export type CompletionsReply = 1 | ReadonlyArray<string>

/** The answers to one of several requests. */
export const completeAnswers = (
  reply: CompletionsReply,
  { items }: CompleteRequest,
  place: number
): ReadonlyArray<Protocol.KeyCompleteAnswer> => {
  if (reply === 1 || reply[place] === "") {
    return items.length === 1
      ? oneCompleted
      : new Array<Protocol.KeyCompleteAnswer>(items.length).fill("Completed")
  }
  return Array.from(reply[place], (code) => completions[code])
}

/** A code for each key, and what there is to say of some. */
export type StatusReply = [codes: string, more: Array<unknown>]

export const statuses = ([codes, more]: StatusReply): ReadonlyArray<Protocol.KeyStatus> => {
  let next = 0
  return Array.from(codes, (code): Protocol.KeyStatus => {
    if (code === "u") return { _tag: "Unknown" }
    const until = more[next++] as number
    switch (code) {
      case "h":
        return { _tag: "InFlight", until, owner: more[next++] as string }
      case "r":
        return { _tag: "Completed", until, result: more[next++] as string }
      default:
        return { _tag: "Completed", until, result: undefined }
    }
  })
}
