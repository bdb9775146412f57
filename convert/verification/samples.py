"""Sample texts for verification, written for this purpose: prose, edge cases of tokenizers, documents."""

from __future__ import annotations

__all__ = ["DOCUMENTS", "LINES"]

# Biomedical prose, then spellings, spaces and scripts that are edge cases of tokenizers.
LINES = (
    "Naloxone reverses the antihypertensive effect of clonidine in spontaneously hypertensive rats.",
    "A 64-year-old woman with stage IV non-small-cell lung cancer received 200 mg of pembrolizumab every 3 weeks.",
    "Serum creatinine rose from 0.9 to 2.4 mg/dL (P<0.001; 95% CI: 1.2-3.6) within 48 h of amphotericin B.",
    "Mutations in BRCA1 (c.68_69delAG, p.Glu23ValfsTer17) raise the lifetime risk of breast and ovarian cancer.",
    "N-acetyl-p-benzoquinone imine (NAPQI), 1,25-(OH)2D3, [3H]-SCH 23390 and 5'-deoxy-5-fluorouridine were assayed.",
    "IL-6, TNF-α and IFN-γ fell, but TGF-β1 didn't; κ- and μ-opioid agonists weren't given at 37 °C.",
    "We'd expect it: they've shown the patient's QT interval (QTc ≥ 500 ms) isn't prolonged; I'm sure you'll see.",
    "患者は高血圧と2型糖尿病を有し、メトホルミン500mgを1日2回服用していた。",
    "Ménière's disease, Sjögren's syndrome, naïve T cells, a 5 µm section, Ångström, Ærø, façade, œdema, cafe\u0301.",
    "Doses:\n  aspirin   100 mg\n\n\twarfarin\t5 mg\r\nheparin 5,000 IU   \n   ",
    "1234567890 12 345 6789 3.14159 1e-10 ½ ² ₂ Ⅳ １２３ ١٢٣",
    "🙂 👩🏽\u200d⚕️ 🧬💊 x̂ \u00a0non-breaking\u2009thin\u3000wide\u200bzero",
    "    four spaces, then  two, then a tab\tand the end  ",
    "<Chemical>x</Chemical> @@y## [\"a\", \"b\"] {\"k\": [[0, 8]]} A\\B __init__ ~~~ ---- ....!!!",
)  # fmt: skip

# Short documents to compare what a file extracts.
DOCUMENTS = (
    "Acute hepatitis developed in two of forty volunteers who took labetalol, and resolved when it was withdrawn. "
    "Neither had jaundice before.",
    "Seizures after a single dose of tramadol were seen in rats with renal failure (n = 12); diazepam prevented them.",
    "α-Methyldopa-induced haemolytic anaemia: a 58-year-old man, HbA1c 7.2 %, on metformin 500 mg b.i.d. "
    "His anaemia improved within 3 weeks.",
)
