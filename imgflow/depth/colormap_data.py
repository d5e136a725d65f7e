"""Packed colour maps: 256 RGB colours each, as differences, zlib and base 85.

Unpacking them, and colour maps that are computed, are in `imgflow.depth.colormaps`.

viridis, magma, inferno and plasma are by Nathaniel Smith, Stéfan van der Walt and Eric Firing
(CC0); cividis is by Jamie Nuñez, Christopher Anderton and Ryan Renslow (BSD-2-Clause). Rounded to
the nearest byte from the float tables in matplotlib 3's `_cm_listed.py`.
"""

DEFAULT_COLORMAP = "strata"
"""Defined here, without numpy, which workers that read photographs do not need."""

PACKED_TABLES = {
    "viridis": (
        "c-n<hi4lY#3{0@KE8+St<xsL4Sjp&Rzu+jyOg`opECkc)X`Q6qnhK3HNo_OG;RhV>kb4UegZDb1pdhW1hA(9"
        "608i7%o<`5u+O6#W6MI|R-q~_nLKyo3Fq1@l=e3($blyl0DjP1z=#&|HsQxfvb9OjPgHv1mpkyG8q{bp%?-("
        ";)vb7T{kBAB"
    ),
    "magma": (
        "c-nnZ0TRO?2ov1@zwB-SL$G!b1Lv7mfnj3+W>_$1*l-6$vculB^q1sG_f&LnT*IwwB;bXl<Uh79*?xVvf`0)"
        "m>K0|9YP!<*pnj$WHo~<BT6(W=N!o!IuJjWh_vy5m1SCzK_+2Be79*q0Xg#o_&`SykB*7c7NQn@fO{<x$$z{"
        "pxF?9O+h+oRdEx7"
    ),
    "inferno": (
        "c-nnYff9uv2!rhX{~u?`HW6PJ%pqLTG0e>d{DJHs!U>Qs;e$R4<q|F;;(*eOB!nkOv@Yrca*^RRewRH^w6*u"
        "rP6u^geWN|pynv!x9d(YM%G6!t7O)v|#%cbNLw)LdoUU&gNobki>0F5>sw(}<pOS}zaOtF1yLP_vOejQK(?U"
        "6N(<p5Kb`Gcg5T42nM;>jU"
    ),
    "plasma": (
        "c-nnZ(Gq|l2qSyxrSI;mJ2C|}$P4BM#ifDg-mSHcVVl!tfQC>Ip2!euQVL*FB1t3_0_pB#FoG&XUyx78p<ZR"
        "RMYVp1H;99feg3sA)Bo4RL9{ZMiYEd{uGmd51vLB9=;&~m0@2nNV?h=Pr?S>RSw0n~IbOAM`Rx3X4DD6-1AJ"
        "tl3j"
    ),
    "cividis": (
        "c-oCp0TO^92m|ybJ*fY`MiW5;#j7#KtPU>}AOz-=Qz8LMC~@csu(_o|`0~&r2K{(Un<G<L+K*nk893UNFaH;"
        "(4yG)2%Y)gipR5@le9V+?<nv{!@JY7;K<)RSPEmbpcx}8vCz^w}e(oDD`<v{vGDFy8rih@Z6b?ok2t7^bLmv"
    ),
}
