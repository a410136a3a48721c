/**
 * What the log holds of a record, as bytes: the same record has the same bytes, so that a store tells by them whether it
 * is another one. A stored format: what is changed here gets another first byte.
 *
 *     byte 1 | timestamp: 8 bytes | key | value | number of headers: 4 bytes | name, value of each
 *
 * Numbers are big-endian. Bytes are preceded by their number plus one, in 4 bytes; 0 stands for what is absent.
 */

/** A header of a record. Names may repeat; their order is kept. */
export interface RecordHeader {
  readonly name: string
  readonly value: Uint8Array | undefined
}

/** What a log holds of a record besides its place. */
export interface RecordContent {
  /** Milliseconds since the epoch, as the producer or the broker set it. */
  readonly timestampMillis: number
  /** `undefined` for a record without a key. */
  readonly key: Uint8Array | undefined
  /** `undefined` for a tombstone. */
  readonly value: Uint8Array | undefined
  readonly headers: ReadonlyArray<RecordHeader>
}

const format = 1
const lengthBytes = 4

const sizeOf = (bytes: Uint8Array | undefined): number => lengthBytes + (bytes?.length ?? 0)

/** How many bytes {@link encode} makes of a record. */
export const encodedSize = ({ headers, key, value }: RecordContent): number => {
  let size = 1 + 8 + sizeOf(key) + sizeOf(value) + lengthBytes
  for (const header of headers) size += lengthBytes + Buffer.byteLength(header.name) + sizeOf(header.value)
  return size
}

export const encode = (content: RecordContent): Buffer => {
  const { headers, key, timestampMillis, value } = content
  const encoded = Buffer.allocUnsafe(encodedSize(content))
  let at = encoded.writeUInt8(format, 0)
  at = encoded.writeDoubleBE(timestampMillis, at)
  const put = (bytes: Uint8Array | undefined): void => {
    at = encoded.writeUInt32BE(bytes === undefined ? 0 : bytes.length + 1, at)
    if (bytes !== undefined) {
      encoded.set(bytes, at)
      at += bytes.length
    }
  }
  put(key)
  put(value)
  at = encoded.writeUInt32BE(headers.length, at)
  for (const header of headers) {
    put(Buffer.from(header.name))
    put(header.value)
  }
  return encoded
}

/** The record, as views of the same memory; `undefined` where the bytes are not what {@link encode} makes. */
export const decode = (bytes: Uint8Array): RecordContent | undefined => {
  const encoded = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (encoded.length < 9 || encoded[0] !== format) return undefined
  let at = 9
  let isWhole = true
  const takeCount = (): number => {
    isWhole &&= at + lengthBytes <= encoded.length
    if (!isWhole) return 0
    at += lengthBytes
    return encoded.readUInt32BE(at - lengthBytes)
  }
  const take = (): Uint8Array | undefined => {
    const count = takeCount()
    if (count === 0) return undefined
    at += count - 1
    isWhole &&= at <= encoded.length
    return encoded.subarray(at - (count - 1), at)
  }
  const timestampMillis = encoded.readDoubleBE(1)
  const key = take()
  const value = take()
  const headers: Array<RecordHeader> = []
  for (let left = takeCount(); left > 0 && isWhole; left--) {
    const name = take()
    if (name === undefined) return undefined
    headers.push({ name: name.toString(), value: take() })
  }
  return isWhole && at === encoded.length ? { timestampMillis, key, value, headers } : undefined
}
