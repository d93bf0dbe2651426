// Drawing of the timeline's shapes as SVG. The log beside it has the same in words.

import { fitting, HEIGHT, type Shape } from "./timeline.ts";

const SVG = "http://www.w3.org/2000/svg";

/** Replace the content of `svg` by the shapes. */
export function draw(svg: SVGSVGElement, shapes: readonly Shape[], width: number): void {
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.replaceChildren(...shapes.flatMap(elements));
}

function elements(shape: Shape): SVGElement[] {
  switch (shape.kind) {
    case "bar": {
      const { x, y, width, height, className } = shape;
      const bar = element("rect", `block ${className}`, { x, y, width, height, rx: 6 });
      const text = fitting(shape);
      return text === "" ? [bar] : [bar, label(`on-block ${className}`, x + 8, y + height / 2 + 4, text)];
    }
    case "rule":
      return [
        element("line", `rule ${shape.className}`, { x1: shape.x, x2: shape.x, y1: shape.y, y2: shape.y + shape.height }),
      ];
    case "span":
      return [
        element("line", `span ${shape.className}`, { x1: shape.x, x2: shape.x + shape.width, y1: shape.y, y2: shape.y }),
      ];
    case "label":
      return [label(shape.className, shape.x, shape.y, shape.text)];
  }
}

function label(className: string, x: number, y: number, text: string): SVGElement {
  const created = element("text", className, { x, y });
  created.textContent = text;
  return created;
}

function element(name: string, className: string, numbers: Record<string, number>): SVGElement {
  const created = document.createElementNS(SVG, name);
  created.setAttribute("class", className);
  for (const [attribute, value] of Object.entries(numbers)) {
    created.setAttribute(attribute, value.toFixed(1));
  }
  return created;
}
