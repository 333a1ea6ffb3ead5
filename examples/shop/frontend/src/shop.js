// What the page knows, and how it learns it: two requests and one event stream.
import { onMounted, onUnmounted, ref } from 'vue'

async function json(address, options) {
  const response = await fetch(address, options)
  if (!response.ok) throw new Error(`${address}: HTTP ${response.status}`)
  return response.json()
}

export function useShop() {
  const version = ref(null)
  const products = ref([])
  const orders = ref([])
  const live = ref(false)
  const problem = ref('')

  // Runs a request; what goes wrong is shown, and gone with the next one that works.
  async function attempt(work) {
    try {
      await work()
      problem.value = ''
    } catch {
      problem.value = 'The shop does not answer. It will be back in a moment.'
    }
  }

  const load = () =>
    attempt(async () => {
      version.value = await json('/version')
      products.value = (await json('/api/products')).products
    })

  const order = (product) =>
    attempt(() =>
      json('/api/orders', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ product: product.slug, quantity: 1 }),
      }),
    )

  // The server ends the stream every few seconds and the browser comes back by itself. Each time it may find a new
  // release there, so it asks again what runs: the badge changes while somebody looks at it.
  let source
  onMounted(() => {
    source = new EventSource('/events')
    source.onopen = () => {
      live.value = true
      load()
    }
    source.onmessage = (event) => (orders.value = JSON.parse(event.data))
    source.onerror = () => (live.value = false)
  })
  onUnmounted(() => source.close())

  return { version, products, orders, live, problem, order }
}
