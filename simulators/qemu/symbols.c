/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "symbols.h"

enum { MEMO = 64, INTEGER_REGS = 32 };

/* The root of a sum or of a shifted or extended value: equal operands have equal results. */
struct memo {
    uint64_t left, right, root;
    int64_t offset;
    uint8_t shift, extend;
};

static struct symbol registers[INTEGER_REGS];
static struct memo memos[MEMO];
static unsigned n_memos;
static uint64_t last_root;

void symbols_reset(void)
{
    last_root = 0;
    n_memos = 0;
    for (unsigned n = 0; n < INTEGER_REGS; n++)
        registers[n] = (struct symbol){++last_root, 0};
}

static uint64_t memo_root(struct memo wanted)
{
    for (unsigned n = 0; n < n_memos; n++)
        if (memos[n].left == wanted.left && memos[n].right == wanted.right &&
            memos[n].offset == wanted.offset && memos[n].shift == wanted.shift &&
            memos[n].extend == wanted.extend)
            return memos[n].root;
    wanted.root = ++last_root;
    if (n_memos < MEMO)
        memos[n_memos++] = wanted;
    return wanted.root;
}

static struct symbol value_of(unsigned reg)
{
    return reg < INTEGER_REGS ? registers[reg] : (struct symbol){0, 0};
}

struct symbol symbols_address(const struct linear *l)
{
    struct symbol base = value_of(l->base), index = value_of(l->index);
    if (l->index < INTEGER_REGS) {
        if (l->extend) { /* narrower than 64 bits: an offset does not pass through */
            index.root = memo_root((struct memo){.left = index.root, .offset = index.offset,
                                                 .shift = l->shift, .extend = l->extend});
            index.offset = 0;
        } else if (l->shift) {
            if (index.root)
                index.root = memo_root((struct memo){.left = index.root, .shift = l->shift});
            index.offset = (int64_t)((uint64_t)index.offset << l->shift);
        }
    }
    uint64_t offset = (uint64_t)base.offset + (uint64_t)index.offset + (uint64_t)l->imm;
    uint64_t low = base.root < index.root ? base.root : index.root;
    uint64_t high = base.root < index.root ? index.root : base.root;
    uint64_t root = low ? memo_root((struct memo){.left = low, .right = high}) : high;
    return (struct symbol){root, (int64_t)offset};
}

void symbols_update(const struct insn *insn)
{
    struct symbol value = {0, 0};
    bool defined = insn->defines < INTEGER_REGS && !(insn->flags & INSN_UNKNOWN);
    if (defined)
        value = symbols_address(&insn->value);
    if (insn->flags & INSN_UNKNOWN)
        for (unsigned n = 0; n < INTEGER_REGS; n++)
            registers[n] = (struct symbol){++last_root, 0};
    for (unsigned n = 0; n < insn->n_dst; n++)
        if (insn->dst[n] < INTEGER_REGS)
            registers[insn->dst[n]] = (struct symbol){++last_root, 0};
    if (defined)
        registers[insn->defines] = value;
}
