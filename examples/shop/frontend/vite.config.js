// Builds the page into dist/, which Django serves. `npm run dev` serves it itself and asks Django for the rest.
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

const django = process.env.DJANGO ?? 'http://127.0.0.1:8000'

export default defineConfig({
  plugins: [vue()],
  server: { proxy: { '/api': django, '/events': django, '/version': django } },
})
