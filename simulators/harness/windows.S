/* SPDX-License-Identifier: Apache-2.0
 *
 * Three windows that the linker places at fixed addresses, each in a segment of its own
 * (simtune/build/link.py). A candidate's table, code and data take their place in the file.
 */
    .section .cand_image, "a"
    .balign 64
    .globl image_window
image_window:
    .zero 64

    .section .cand_text, "ax"
    .balign 64
    .zero 64

    .section .cand_data, "aw"
    .balign 64
    .zero 64

    .section .note.GNU-stack, ""
