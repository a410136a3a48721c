import { randomUUID } from "node:crypto"

/** A name for a topic, a group or a key that no other test and no other run uses: `orders-1b9d6bcd`. */
export const uniqueName = (prefix: string): string => `${prefix}-${randomUUID().slice(0, 8)}`
