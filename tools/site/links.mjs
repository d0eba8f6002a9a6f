// Checks the links of all pages of the repository: files exist, and so do the headings that are linked to.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

const root = join(import.meta.dirname, '../..')
const notOurs = new Set(['node_modules', 'target', 'dist'])

function pagesIn(directory) {
  return readdirSync(join(root, directory), { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name)
    if (entry.isDirectory()) return notOurs.has(entry.name) || entry.name.startsWith('.') ? [] : pagesIn(path)
    return entry.name.endsWith('.md') ? [path] : []
  })
}

const pages = pagesIn('.')

/** The name of a heading in links, as common renderers make it. */
function slug(heading) {
  const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/[`*]/g, '')
  return text.trim().toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-')
}

function withoutBlocks(text) {
  return text.replace(/^```[\s\S]*?^```/gm, '').replace(/<!--[\s\S]*?-->/g, '')
}

const headings = new Map()
function headingsOf(path) {
  if (!headings.has(path)) {
    const lines = withoutBlocks(readFileSync(path, 'utf8')).split('\n')
    headings.set(path, new Set(lines.filter((line) => /^#+ /.test(line)).map((line) => slug(line.replace(/^#+ /, '')))))
  }
  return headings.get(path)
}

const broken = []
let links = 0
for (const page of pages) {
  const path = join(root, page)
  const text = withoutBlocks(readFileSync(path, 'utf8')).replace(/`[^`\n]*`/g, '')
  for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^(https?|mailto):/.test(target)) continue
    links += 1
    const [file, anchor] = target.split('#')
    const to = file === '' ? path : join(dirname(path), file)
    if (!existsSync(to)) {
      broken.push(`${page}: no ${target}`)
    } else if (anchor !== undefined && to.endsWith('.md') && !headingsOf(to).has(anchor)) {
      broken.push(`${page}: ${relative(root, to)} has no heading for #${anchor}`)
    }
  }
}
if (links === 0) broken.push('no link was found')
for (const text of broken) console.error(text)
console.log(`${links} links in ${pages.length} pages, ${broken.length} broken`)
process.exit(broken.length === 0 ? 0 : 1)
