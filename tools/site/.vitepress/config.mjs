// The site is docs/ as it is. A link to a file of the repository that is no page of the site becomes plain text.
import { cp } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

// The pages lie outside of this package, from where its modules are not found.
const { resolve } = createRequire(import.meta.url)
const vue = dirname(resolve('vue/package.json'))
const docs = join(import.meta.dirname, '../../../docs')

function plainTextForFilesOfTheRepository(markdown) {
  const { renderer } = markdown
  const open = renderer.rules.link_open ?? ((tokens, index, options, _, self) => self.renderToken(tokens, index, options))
  const close = renderer.rules.link_close ?? ((tokens, index, options, _, self) => self.renderToken(tokens, index, options))
  let isOutside = false
  renderer.rules.link_open = (tokens, index, options, env, self) => {
    const href = tokens[index].attrGet('href') ?? ''
    isOutside = href.startsWith('../')
    return isOutside ? '<span>' : open(tokens, index, options, env, self)
  }
  renderer.rules.link_close = (tokens, index, options, env, self) =>
    isOutside ? '</span>' : close(tokens, index, options, env, self)
}

export default {
  title: 'Sealpost',
  description: 'A self-hosted relay for devices that encrypt end to end',
  srcDir: '../../docs',
  srcExclude: ['**/examples/**'],
  outDir: '../../target/site',
  cacheDir: '../../target/site-cache',
  base: process.env.SITE_BASE ?? '/',
  cleanUrls: false,
  markdown: { config: plainTextForFilesOfTheRepository },
  // What is no page is copied at the end; links.mjs has checked that it exists.
  ignoreDeadLinks: [/\/schemas(\/|$)/, /asyncapi\.yaml$/, /examples\//],
  async buildEnd({ outDir }) {
    await cp(join(docs, 'schemas'), join(outDir, 'schemas'), { recursive: true })
    await cp(join(docs, 'asyncapi.yaml'), join(outDir, 'asyncapi.yaml'))
  },
  vite: {
    resolve: {
      alias: [
        { find: /^vue\/server-renderer$/, replacement: join(vue, 'server-renderer/index.mjs') },
        { find: /^vue$/, replacement: join(vue, 'dist/vue.runtime.esm-bundler.js') },
      ],
    },
  },
  themeConfig: {
    search: { provider: 'local' },
    outline: 'deep',
    sidebar: [
      { text: 'Start', items: [
        { text: 'Start here', link: '/start' },
        { text: 'What else you could take', link: '/comparison' },
      ] },
      { text: 'Clients', items: [
        { text: 'Write a client', link: '/write-a-client' },
        { text: 'A page of sixty lines', link: '/60-lines' },
        { text: 'The protocol', link: '/protocol' },
      ] },
      { text: 'Run it', items: [
        { text: 'Settings, and running it', link: '/settings' },
        { text: 'Operations', link: '/operations' },
        { text: 'Durability', link: '/durability' },
        { text: 'Performance', link: '/performance' },
      ] },
      { text: 'Change it', items: [
        { text: 'Architecture', link: '/architecture' },
        { text: 'Test it, load-test it', link: '/testing' },
      ] },
    ],
  },
}
