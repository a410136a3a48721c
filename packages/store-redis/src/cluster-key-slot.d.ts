/** The package has no types of its own. */
declare module "cluster-key-slot" {
  /** The slot of a key on a Redis Cluster, from 0 to 16,383: that of its hash tag, where it has one. */
  export default function slotOf(key: string | Buffer): number
}
