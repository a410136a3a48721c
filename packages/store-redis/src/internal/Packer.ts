/**
 * Writes what the scripts read by cmsgpack: arrays, texts, and texts that hold arrays in their turn. Keys that are uuids
 * in their usual form take 17 bytes; no other key begins so, since byte 255 does not occur in UTF-8.
 *
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md
 */
const uuidMark = 0xff
const stateMark = 0xff
const claimMark = 0xfe
const uuidLength = 36
const packedUuid = 17

const dash = 45

/** The value of a lower-case hexadecimal digit; -1 for any other character. */
const digitOf = Int8Array.from({ length: 128 }, (_, code) =>
  code >= 48 && code <= 57 ? code - 48 : code >= 97 && code <= 102 ? code - 87 : -1
)

export class Packer {
  private buffer = Buffer.allocUnsafe(4_096)
  private length = 0

  /** What has been written since the last `take`, as a buffer of its own. */
  take(): Buffer {
    const written = Buffer.from(this.buffer.subarray(0, this.length))
    this.length = 0
    return written
  }

  /** An array of `count` values, which are to be written next. */
  array(count: number): this {
    this.reserve(5)
    if (count < 16) {
      this.byte(0x90 | count)
    } else {
      this.byte(0xdd)
      this.length = this.buffer.writeUInt32BE(count, this.length)
    }
    return this
  }

  /** A whole number from 0 on. */
  integer(value: number): this {
    this.reserve(9)
    if (value < 128) {
      this.byte(value)
    } else if (value < 2 ** 32) {
      this.byte(0xce)
      this.length = this.buffer.writeUInt32BE(value, this.length)
    } else {
      this.byte(0xcf)
      this.length = this.buffer.writeUInt32BE(Math.floor(value / 2 ** 32), this.length)
      this.length = this.buffer.writeUInt32BE(value % 2 ** 32, this.length)
    }
    return this
  }

  nil(): this {
    this.reserve(1)
    this.byte(0xc0)
    return this
  }

  text(text: string): this {
    this.reserve(5 + 3 * text.length)
    if (text.length < 11) {
      // 31 bytes at most
      const header = this.length
      this.byte(0)
      const bytes = this.write(text)
      this.buffer[header] = 0xa0 | bytes
    } else {
      const header = this.open()
      this.write(text)
      this.close(header)
    }
    return this
  }

  /** Begins a text that holds all that is written until `close` is given what this answers. */
  open(): number {
    this.reserve(5)
    const header = this.length
    this.length += 5
    return header
  }

  close(header: number): this {
    this.buffer[header] = 0xdb
    this.buffer.writeUInt32BE(this.length - header - 5, header + 1)
    return this
  }

  /** The name that a claim is stored under; no key begins so. */
  claim(claimId: string): this {
    this.reserve(6 + 3 * claimId.length)
    const header = this.open()
    this.byte(claimMark)
    this.write(claimId)
    return this.close(header)
  }

  /** The name that the state of a namespace is stored under. */
  state(): this {
    this.reserve(2)
    this.byte(0xa1)
    this.byte(stateMark)
    return this
  }

  key(key: string): this {
    return key.length === uuidLength && this.uuid(key) ? this : this.text(key)
  }

  keys(keys: ReadonlyArray<string>): this {
    this.array(keys.length)
    for (const key of keys) this.key(key)
    return this
  }

  /** Writes the key if it is a uuid. */
  private uuid(key: string): boolean {
    this.reserve(1 + packedUuid)
    const { buffer } = this
    let at = this.length + 2
    for (let index = 0; index < uuidLength; index += 2) {
      if (index === 8 || index === 13 || index === 18 || index === 23) {
        if (key.charCodeAt(index) !== dash) return false
        index += 1
      }
      const high = key.charCodeAt(index)
      const low = key.charCodeAt(index + 1)
      if ((high | low) > 127) return false
      const value = (digitOf[high] << 4) | digitOf[low]
      if (value < 0) return false
      buffer[at++] = value
    }
    buffer[this.length] = 0xa0 | packedUuid
    buffer[this.length + 1] = uuidMark
    this.length = at
    return true
  }

  private byte(value: number): void {
    this.buffer[this.length++] = value
  }

  private write(text: string): number {
    const bytes = this.writeShort(text) ? text.length : this.buffer.write(text, this.length)
    this.length += bytes
    return bytes
  }

  /** Writes a short text of ASCII, which most are: faster than a call of the buffer's own. */
  private writeShort(text: string): boolean {
    if (text.length > 40) return false
    const { buffer, length } = this
    for (let index = 0; index < text.length; index++) {
      const code = text.charCodeAt(index)
      if (code > 127) return false
      buffer[length + index] = code
    }
    return true
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return
    const larger = Buffer.allocUnsafe(2 * (this.length + bytes))
    this.buffer.copy(larger, 0, 0, this.length)
    this.buffer = larger
  }
}

/** A key as the scripts have it: the form that it is stored and published in. */
export const packedKey = (key: string): Buffer => {
  const packed = new Packer().key(key).take()
  return packed.subarray(packed[0] === 0xdb ? 5 : 1)
}

/** The key that was packed. */
export const unpackKey = (packed: Buffer): string => {
  if (packed[0] !== uuidMark) return packed.toString()
  const hex = packed.toString("hex", 1)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
