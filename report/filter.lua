-- Pandoc filter: what the Typst writer drops or writes in a way that Typst refuses is written here.
-- Inlines first (formulas, references), then blocks (figures, tables, raw blocks), which contain them.

local function typst(inlines)
  return (pandoc.write(pandoc.Pandoc({ pandoc.Plain(inlines) }), "typst"):gsub("%s+$", ""))
end

local function quoted(text)
  return '"' .. text:gsub("\\", "\\\\"):gsub('"', '\\"'):gsub("%s+", " ") .. '"'
end

local function is_label(id)
  return id:match("^fig%-") or id:match("^tbl%-") or id:match("^eq%-") or id:match("^sec%-")
end

-- Symbols that Typst renamed, spaces of the wrong width, operators and fences that lose their limits or size.
local function mended(math)
  math = math:gsub("%.circle", ".o")
  math = math:gsub("#h%(%-1em%)", "#h(-0.1667em)"):gsub("#h%(0em%)", "#h(0.2778em)")
  -- Quoted words outside upright(...) are operators; arg max and arg min carry their subscripts underneath.
  math = math:gsub('upright%("(.-)"%)', "upright(\1%1\1)")
  math = math:gsub('"(arg[^"]+)"', "op(\1%1\1, limits: #true)"):gsub('"(%a[^"]*)"', "op(\1%1\1)")
  math = math:gsub("\1", '"')
  for _, fence in ipairs({ "\\[%[%]]", "\\?[^%[%]\\]", "parallel" }) do
    math = math:gsub("#scale%(x: (%d+)%%, y: %d+%%%)%[(" .. fence .. ")%]", function(percent, symbol)
      local bar = symbol == "parallel" or symbol == "\\|"
      symbol = symbol:gsub("^[{}]$", "\\%0"):gsub("^parallel$", "bar.v.double"):gsub("^\\|$", "bar.v")
      local text = "lr(size: #" .. percent / 100 .. "em, " .. symbol .. ")"
      return bar and 'class("normal", ' .. text .. ")" or text
    end)
  end
  -- One word set upright is one word: letter by letter it loses its kerning.
  math = math:gsub("upright%((%a [%a ]*)%)", function(letters)
    if (" " .. letters):find("%a%a") then return nil end
    return 'upright("' .. letters:gsub(" ", "") .. '")'
  end)
  math = math:gsub("cases(%b())", function(rows) return "cases" .. rows:gsub(" & ", " & quad ") end)
  math = math:gsub("∥(.-)∥", 'class("normal", norm(%1))')
  -- Around words and bars Typst keeps the spaces of the source, TeX none. Bars in pairs open and close.
  math = math:gsub('"%) (\\[%(%[])', '")%1'):gsub('"%) %(', '")/**/('):gsub('(%d) upright%(","%) (%d)', '%1upright(",")%2')
  math = math:gsub('(upright%("[^"]-)%s+"%) ', '%1") '):gsub(' upright%("%s+', ' upright("')
  local _, bars = math:gsub("\\|", "")
  local count = 0
  math = math:gsub("\\|", function()
    count = count + 1
    local class = bars % 2 == 1 and "normal" or count % 2 == 1 and "opening" or "closing"
    return 'class("' .. class .. '", bar.v)'
  end)
  math = math:gsub("lr%(bar%.v%.double (.-) bar%.v%.double%)", 'class("normal", norm(%1))')
  math = math:gsub("parallel (.-) parallel", 'class("normal", norm(%1))')
  return math
end

-- A formula as Typst, with its LaTeX as alternative text; a labelled one is numbered.
local function equation(math, label)
  math = pandoc.Math(math.mathtype, math.text)
  if math.mathtype == "DisplayMath" then
    label = label or math.text:match("\\label{(.-)}")
    math.text = math.text:gsub("%s*\\label{.-}", ""):gsub("\\nonumber", ""):gsub("\\notag", "")
  end
  local source = math.text
  math.text = source:gsub("{,}", "\\text{,}") -- the comma of 1{,}000 is no list's
  local display = math.mathtype == "DisplayMath"
  local body = pandoc.write(pandoc.Pandoc({ pandoc.Plain({ math }) }), "typst")
  body = mended(body:gsub("%s+$", ""))
  local options = (display and "block: true, " or "") .. (label and 'numbering: "(1)", ' or "")
  local text = "#math.equation(" .. options .. "alt: " .. quoted(source) .. ", " .. body .. ")"
  return pandoc.RawInline("typst", text .. (label and (" <" .. label .. ">") or "") .. (display and "\n" or ""))
end

local function reference(id)
  return pandoc.RawInline("typst", "#ref(<" .. id .. ">)")
end

local function cite(inline)
  local result = pandoc.Inlines({})
  for _, one in ipairs(inline.citations) do
    if is_label(one.id) then
      if #result > 0 then result:extend({ pandoc.Str(","), pandoc.Space() }) end
      result:extend(one.prefix)
      if #one.prefix > 0 then result:insert(pandoc.Space()) end
      result:insert(reference(one.id))
      result:extend(one.suffix)
    else
      if #one.prefix > 0 then
        result:extend(one.prefix)
        result:insert(pandoc.Space())
      end
      local form = one.mode == "AuthorInText" and ', form: "prose"' or ""
      local note = #one.suffix > 0 and (", supplement: [" .. typst(one.suffix):gsub("^[,%s]+", "") .. "]") or ""
      result:insert(pandoc.RawInline("typst", "#cite(<" .. one.id .. ">" .. form .. note .. ")"))
    end
  end
  return result
end

-- \begin{align} outside dollars, as a formula; nil for other TeX.
local function environment(text)
  local name, body = text:match("^%s*\\begin{(%a+)%*?}(.*)\\end{%a+%*?}%s*$")
  if not name then return nil end
  if name == "align" or name == "gather" then body = "\\begin{aligned}" .. body .. "\\end{aligned}" end
  return equation(pandoc.Math("DisplayMath", body))
end

-- \ref, \eqref, \cite and environments are read as raw TeX, which would be dropped.
local function raw_inline(inline)
  if inline.format ~= "tex" and inline.format ~= "latex" then return nil end
  local formula = environment(inline.text)
  if formula then return formula end
  local ref = inline.text:match("^\\eqref{(.-)}$") or inline.text:match("^\\ref{(.-)}$")
  if ref then return reference(ref) end
  local keys = inline.text:match("^\\cite{(.-)}$")
  if not keys then error("TeX that cannot be typeset: " .. inline.text, 0) end
  local result = pandoc.Inlines({})
  for key in keys:gmatch("[^,%s]+") do
    result:insert(pandoc.RawInline("typst", "#cite(<" .. key .. ">)"))
  end
  return result
end

local function raw_block(block)
  if block.format ~= "tex" and block.format ~= "latex" then return nil end
  local formula = environment(block.text)
  if not formula then error("TeX that cannot be typeset: " .. block.text, 0) end
  return pandoc.Para({ formula })
end

local function span(inline)
  if inline.identifier:match("^eq%-") and #inline.content == 1 and inline.content[1].t == "Math" then
    return equation(inline.content[1], inline.identifier)
  end
end

local function figure_text(body, kind, caption, label)
  local text = "#figure(kind: " .. kind .. ",\n  " .. body
  if caption ~= "" then text = text .. ",\n  caption: [" .. caption .. "]" end
  return text .. ")" .. (label ~= "" and (" <" .. label .. ">") or "")
end

local function image(inline)
  local alt = inline.attributes.alt or pandoc.utils.stringify(inline.caption)
  local number, unit = (inline.attributes.width or ""):match("^([%d.]+)(%D*)$")
  if unit == "px" or unit == "" then number, unit = number * 0.75, "pt" end
  local width = number and (", width: " .. number .. unit) or ""
  return "image(" .. quoted(inline.src) .. ", alt: " .. quoted(alt) .. width .. ")"
end

local function inline_image(inline)
  return pandoc.RawInline("typst", "#box(" .. image(inline) .. ")")
end

local function figure(block)
  local picture
  block:walk({ Image = function(inline) picture = inline end })
  local caption = typst(pandoc.utils.blocks_to_inlines(block.caption.long))
  local label = is_label(block.identifier) and block.identifier or ""
  return pandoc.RawBlock("typst", figure_text(image(picture), "image", caption, label))
end

local function alone(block)
  if #block.content == 1 and block.content[1].t == "Image" then
    return pandoc.RawBlock("typst", "#align(center, " .. image(block.content[1]) .. ")")
  end
end

local function cells(row)
  local texts = {}
  for _, cell in ipairs(row) do
    texts[#texts + 1] = "[" .. typst(pandoc.utils.blocks_to_inlines(cell)) .. "]"
  end
  return table.concat(texts, ", ")
end

local ALIGNMENT = { AlignLeft = "left", AlignRight = "right", AlignCenter = "center", AlignDefault = "left" }

local function table_text(block)
  local simple = pandoc.utils.to_simple_table(block)
  local aligned = {}
  for _, one in ipairs(simple.aligns) do aligned[#aligned + 1] = ALIGNMENT[one] end
  local lines = { "table(columns: " .. #simple.aligns .. ", align: (" .. table.concat(aligned, ", ") .. ",)," }
  lines[#lines + 1] = "  table.hline(), table.header(" .. cells(simple.headers) .. "), table.hline(stroke: 0.5pt),"
  for _, row in ipairs(simple.rows) do lines[#lines + 1] = "  " .. cells(row) .. "," end
  lines[#lines + 1] = "  table.hline())"
  return table.concat(lines, "\n"), #simple.rows
end

-- A table with its caption; only a long one may be torn between pages.
local function table_figure(block, caption, label)
  local body, rows = table_text(block)
  local text = figure_text(body, "table", caption, label)
  if rows > 30 then text = "#[#show figure: set block(breakable: true)\n" .. text .. "]" end
  return pandoc.RawBlock("typst", text)
end

local function plain_table(block)
  local caption = typst(pandoc.utils.blocks_to_inlines(block.caption.long))
  local label = is_label(block.identifier) and block.identifier or ""
  return table_figure(block, caption, label)
end

-- A division with a label holds one table and its caption as the last paragraph.
local function labelled_table(block)
  if not block.identifier:match("^tbl%-") then return nil end
  if block.content[1].t ~= "Table" then error(block.identifier .. ": expected a Markdown table", 0) end
  local caption = #block.content == 2 and typst(block.content[2].content) or ""
  return table_figure(block.content[1], caption, block.identifier)
end

return {
  { Span = span },
  { Math = function(math) return equation(math) end, Cite = cite, RawInline = raw_inline },
  { RawBlock = raw_block },
  { Figure = figure, Para = alone },
  { Image = inline_image },
  { Div = labelled_table },
  { Table = plain_table },
}
