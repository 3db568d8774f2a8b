; minimal - the smallest guest: one instruction of one byte.
bits 16
org 0

    hlt
