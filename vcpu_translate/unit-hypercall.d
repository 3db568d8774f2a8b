vcpu_translate/unit-hypercall.o: grader/units/hypercall.c \
  common/contract/lab2.h common/contract/lab1.h common/contract/given.h \
  common/contract/vmm.h common/contract/abi.h common/contract/x86.h \
  grader/units/unit.h

common/contract/lab2.h:

common/contract/lab1.h:

common/contract/given.h:

common/contract/vmm.h:

common/contract/abi.h:

common/contract/x86.h:

grader/units/unit.h:
